// The former place of athanor/optim/kinds/optimizer_kinds.h.
#pragma once

#include "athanor/optim/kinds/optimizer_kinds.h"

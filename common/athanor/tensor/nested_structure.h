// The former place of athanor/nested/structure.h.
#pragma once

#include "athanor/nested/structure.h"

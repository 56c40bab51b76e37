// The former place of athanor/checkpoint/format/layout.h.
#pragma once

#include "athanor/checkpoint/format/layout.h"

// The former place of athanor/runner/state/weight_names.h.
#pragma once

#include "athanor/runner/state/weight_names.h"

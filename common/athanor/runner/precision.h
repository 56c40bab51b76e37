// The former place of athanor/runner/step/precision.h.
#pragma once

#include "athanor/runner/step/precision.h"

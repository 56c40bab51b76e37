// The former place of athanor/runner/step/step_meters.h.
#pragma once

#include "athanor/runner/step/step_meters.h"

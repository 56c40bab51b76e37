// The former place of athanor/runner/step/step_output.h.
#pragma once

#include "athanor/runner/step/step_output.h"

// The former place of athanor/runner/step/model_average.h.
#pragma once

#include "athanor/runner/step/model_average.h"

// The former place of athanor/runner/step/step_agreement.h.
#pragma once

#include "athanor/runner/step/step_agreement.h"

// The former place of athanor/runner/state/runner_state.h.
#pragma once

#include "athanor/runner/state/runner_state.h"

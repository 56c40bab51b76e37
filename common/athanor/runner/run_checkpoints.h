// The former place of athanor/runner/state/run_checkpoints.h.
#pragma once

#include "athanor/runner/state/run_checkpoints.h"

// The former place of athanor/runner/record/score_tracker.h.
#pragma once

#include "athanor/runner/record/score_tracker.h"

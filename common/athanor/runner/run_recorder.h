// The former place of athanor/runner/record/run_recorder.h.
#pragma once

#include "athanor/runner/record/run_recorder.h"

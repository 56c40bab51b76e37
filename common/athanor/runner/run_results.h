// The former place of athanor/runner/record/run_results.h.
#pragma once

#include "athanor/runner/record/run_results.h"

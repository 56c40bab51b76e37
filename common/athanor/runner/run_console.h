// The former place of athanor/runner/record/run_console.h.
#pragma once

#include "athanor/runner/record/run_console.h"

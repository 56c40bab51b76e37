// The former place of athanor/runner/watch/profiler.h.
#pragma once

#include "athanor/runner/watch/profiler.h"

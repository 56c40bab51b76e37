// The former place of athanor/runner/watch/watchdog.h.
#pragma once

#include "athanor/runner/watch/watchdog.h"

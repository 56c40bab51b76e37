// The former place of athanor/runner/watch/heartbeat.h.
#pragma once

#include "athanor/runner/watch/heartbeat.h"

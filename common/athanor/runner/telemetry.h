// The former place of athanor/runner/watch/telemetry.h.
#pragma once

#include "athanor/runner/watch/telemetry.h"

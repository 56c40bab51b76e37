// The former place of athanor/runner/record/metrics_log.h.
#pragma once

#include "athanor/runner/record/metrics_log.h"

// The former place of athanor/runner/watch/memory_report.h.
#pragma once

#include "athanor/runner/watch/memory_report.h"

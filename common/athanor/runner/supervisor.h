// The former place of athanor/runner/watch/supervisor.h.
#pragma once

#include "athanor/runner/watch/supervisor.h"

// The former place of athanor/runner/step/replica_check.h.
#pragma once

#include "athanor/runner/step/replica_check.h"

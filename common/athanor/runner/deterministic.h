// The former place of athanor/runner/step/deterministic.h.
#pragma once

#include "athanor/runner/step/deterministic.h"

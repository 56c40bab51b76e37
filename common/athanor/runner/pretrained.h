// The former place of athanor/runner/state/pretrained.h.
#pragma once

#include "athanor/runner/state/pretrained.h"

// The former place of athanor/checkpoint/policy/save_decision.h.
#pragma once

#include "athanor/checkpoint/policy/save_decision.h"

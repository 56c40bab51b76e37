// The former place of athanor/checkpoint/policy/retention.h.
#pragma once

#include "athanor/checkpoint/policy/retention.h"

// The former place of athanor/runner/record/json_numbers.h.
#pragma once

#include "athanor/runner/record/json_numbers.h"

// The former place of athanor/torch/fp8_linear.h.
#pragma once

#include "athanor/torch/fp8_linear.h"

// The former place of athanor/torch/module_tensors.h.
#pragma once

#include "athanor/torch/module_tensors.h"

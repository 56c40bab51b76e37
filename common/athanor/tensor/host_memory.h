// The former place of athanor/torch/host_memory.h.
#pragma once

#include "athanor/torch/host_memory.h"

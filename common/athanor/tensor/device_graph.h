// The former place of athanor/torch/device_graph.h.
#pragma once

#include "athanor/torch/device_graph.h"

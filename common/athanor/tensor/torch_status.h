// The former place of athanor/torch/status.h.
#pragma once

#include "athanor/torch/status.h"

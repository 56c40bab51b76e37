// The former place of athanor/nested/ops/convolution.h.
#pragma once

#include "athanor/nested/ops/convolution.h"

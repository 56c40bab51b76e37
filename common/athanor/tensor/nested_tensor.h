// The former place of athanor/nested/tensor.h.
#pragma once

#include "athanor/nested/tensor.h"

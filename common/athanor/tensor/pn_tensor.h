// The former place of athanor/nested/pn_tensor.h.
#pragma once

#include "athanor/nested/pn_tensor.h"

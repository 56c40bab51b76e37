// The former place of athanor/nested/ops/arithmetic.h.
#pragma once

#include "athanor/nested/ops/arithmetic.h"

// The former place of athanor/nested/ops/reduce.h.
#pragma once

#include "athanor/nested/ops/reduce.h"

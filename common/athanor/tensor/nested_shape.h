// The former place of athanor/nested/ops/shape.h.
#pragma once

#include "athanor/nested/ops/shape.h"

// The former place of athanor/nested/ops/linalg.h.
#pragma once

#include "athanor/nested/ops/linalg.h"

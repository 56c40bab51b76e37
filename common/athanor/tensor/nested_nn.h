// The former place of athanor/nested/ops/layers.h.
#pragma once

#include "athanor/nested/ops/layers.h"

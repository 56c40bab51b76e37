// The former place of athanor/nested/ops/segment.h.
#pragma once

#include "athanor/nested/ops/segment.h"

// The former place of athanor/nested/ops/attention.h.
#pragma once

#include "athanor/nested/ops/attention.h"

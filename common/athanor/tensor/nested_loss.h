// The former place of athanor/nested/ops/loss.h.
#pragma once

#include "athanor/nested/ops/loss.h"

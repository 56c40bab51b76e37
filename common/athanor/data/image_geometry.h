// The former place of athanor/data/images/geometry.h.
#pragma once

#include "athanor/data/images/geometry.h"

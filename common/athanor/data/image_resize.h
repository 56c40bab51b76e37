// The former place of athanor/data/images/resize.h.
#pragma once

#include "athanor/data/images/resize.h"

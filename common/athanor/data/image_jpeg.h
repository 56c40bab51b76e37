// The former place of athanor/data/images/jpeg.h.
#pragma once

#include "athanor/data/images/jpeg.h"

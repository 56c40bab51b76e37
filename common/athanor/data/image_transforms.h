// The former place of athanor/data/images/transforms.h.
#pragma once

#include "athanor/data/images/transforms.h"

// The former place of athanor/data/formats/npy.h.
#pragma once

#include "athanor/data/formats/npy.h"

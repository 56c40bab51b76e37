// The former place of athanor/data/images/formats.h.
#pragma once

#include "athanor/data/images/formats.h"

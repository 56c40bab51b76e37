// The former place of athanor/data/images/inflate.h.
#pragma once

#include "athanor/data/images/inflate.h"

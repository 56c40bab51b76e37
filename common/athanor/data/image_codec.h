// The former place of athanor/data/images/codec.h.
#pragma once

#include "athanor/data/images/codec.h"

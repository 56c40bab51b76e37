// The former place of athanor/nested/pack.h.
#pragma once

#include "athanor/nested/pack.h"

// The former place of athanor/nested/index.h.
#pragma once

#include "athanor/nested/index.h"

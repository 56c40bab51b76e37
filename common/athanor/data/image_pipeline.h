// The former place of athanor/data/images/pipeline.h.
#pragma once

#include "athanor/data/images/pipeline.h"

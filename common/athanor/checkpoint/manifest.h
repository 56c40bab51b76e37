// The former place of athanor/checkpoint/format/manifest.h.
#pragma once

#include "athanor/checkpoint/format/manifest.h"

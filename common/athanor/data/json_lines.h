// The former place of athanor/data/formats/json_lines.h.
#pragma once

#include "athanor/data/formats/json_lines.h"

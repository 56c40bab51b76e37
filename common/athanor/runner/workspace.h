// The former place of athanor/runner/record/workspace.h.
#pragma once

#include "athanor/runner/record/workspace.h"

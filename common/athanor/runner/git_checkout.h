// The former place of athanor/runner/record/git_checkout.h.
#pragma once

#include "athanor/runner/record/git_checkout.h"

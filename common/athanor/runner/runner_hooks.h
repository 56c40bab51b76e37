// The former place of RunnerHooks.
#pragma once

#include "athanor/contract/run_hooks.h"

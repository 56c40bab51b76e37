// The former place of athanor/task/task_options.h, for task libraries that name it.
#pragma once

#include "athanor/task/task_options.h"

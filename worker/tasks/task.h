// The former place of athanor/task/task.h, for task libraries that name it.
#pragma once

#include "athanor/task/task.h"

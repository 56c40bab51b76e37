// The former place of athanor/runner/step/step_graph.h.
#pragma once

#include "athanor/runner/step/step_graph.h"

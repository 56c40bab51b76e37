// What a type check cannot see: options that do not go together. Internal to the module.
#pragma once

#include <vector>

#include "athanor/config/runner_config.h"

namespace athanor {

// Adds to *problems. Sections in which a problem was found before are left alone: one mistake, one line.
void AddContradictions(const RunnerConfig& config, std::vector<FieldProblem>* problems);

}  // namespace athanor

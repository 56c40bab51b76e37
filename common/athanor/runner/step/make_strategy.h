// The data strategy that a configuration asks for.
#pragma once

#include <torch/torch.h>

#include <memory>

#include "absl/status/statusor.h"
#include "athanor/config/runner_config.h"
#include "athanor/parallel/membership.h"
#include "athanor/parallel/strategies/data_strategy.h"

namespace athanor {

// The ranks over `parallel.axes` with `stack: parallel`, else as they are. INVALID_ARGUMENT: a product that is not the
// number of ranks, or one rank.
absl::StatusOr<Membership> WithAxesOf(const RunnerConfig& config, const Membership& ranks);

// Not seated yet. `module` outlives it. `find_unused_parameters`: besides comm.find_unused_parameters.
std::unique_ptr<DataStrategy> MakeDataStrategy(const RunnerConfig& config, const ParallelTopology& topology,
                                               const torch::nn::Module* module, bool find_unused_parameters);

}  // namespace athanor

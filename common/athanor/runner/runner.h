// The runner that a configuration names (`stack`).
//
//   ASSIGN_OR_RETURN(auto runner, Runner::Create(config, std::move(options)));
//
//   auto, ddp, torch     TorchRunner: one process per rank, gradients averaged over them
//   graph, graph_runner  TorchRunner with compile.enable: forward and backward as one CUDA graph, the update as another
//
// Others are refused by CheckRunnerConfig(), by name.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "athanor/runner/torch_runner.h"

namespace athanor {

class Runner {
 public:
  // As the functions of TorchRunner with these names.
  static absl::StatusOr<std::unique_ptr<TorchRunner>> Create(RunnerConfig config, TorchRunnerOptions options) {
    return TorchRunner::Create(std::move(config), std::move(options));
  }
  template <class Mine, class... More>
  static absl::StatusOr<std::unique_ptr<Mine>> Make(RunnerConfig config, TorchRunnerOptions options, More&&... more) {
    return TorchRunner::Make<Mine>(std::move(config), std::move(options), std::forward<More>(more)...);
  }
  static absl::StatusOr<std::unique_ptr<TorchRunner>> FromCheckpoint(const std::string& path,
                                                                     TorchRunnerOptions options) {
    return TorchRunner::FromCheckpoint(path, std::move(options));
  }
  static absl::StatusOr<std::unique_ptr<TorchRunner>> FromPretrained(RunnerConfig config, const std::string& path,
                                                                     TorchRunnerOptions options) {
    return TorchRunner::FromPretrained(std::move(config), path, std::move(options));
  }
};

}  // namespace athanor

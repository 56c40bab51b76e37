// A model, a RunnerConfig and a TorchRunner: trains, and a second runner continues from the first one's checkpoint.
#include <absl/time/clock.h>
#include <athanor/config/config_loader.h>
#include <athanor/data/tensor_dataset.h>
#include <athanor/runner/torch_runner.h>

#include <cstdio>

absl::StatusOr<athanor::RunResult> Train(int64_t steps, int64_t* resumed_from) {
  athanor::RunnerConfig config;
  const auto problems = athanor::CheckRunnerConfig({{"seed", 1},
                                                    {"steps", steps},
                                                    {"dir", "run"},
                                                    {"auto_resume", true},
                                                    {"optim", {{"type", "adamw"}, {"lr", 0.05}}}},
                                                   &config);
  if (!problems.empty()) return athanor::ToStatus(problems);
  athanor::SeedGenerators(1);
  torch::nn::Linear net(4, 2);
  const torch::Tensor input = torch::randn({256, 4});
  athanor::TorchRunnerOptions options;
  auto workspace = athanor::ResolveWorkspace(config, absl::Now());
  if (!workspace.ok()) return workspace.status();
  options.workspace = *workspace;
  options.model = net.ptr();
  options.datasets["train"] = *athanor::TensorDataset::Make(input, (input.sum(1) > 0).to(torch::kLong));
  options.forward = [net](const athanor::Batch& batch) mutable {
    return athanor::StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target)};
  };
  auto runner = athanor::TorchRunner::Create(config, std::move(options));
  if (!runner.ok()) return runner.status();
  auto result = (*runner)->Train();
  *resumed_from = (*runner)->progress().resumed_from_step;
  return result;
}

int main() {
  int64_t first = 0, second = 0;
  const auto trained = Train(40, &first);
  const auto continued = Train(60, &second);
  if (!trained.ok() || !continued.ok()) {
    std::fprintf(stderr, "%s %s\n", trained.status().ToString().c_str(), continued.status().ToString().c_str());
    return 1;
  }
  std::printf("resumed from %ld, loss %.4f at step %ld\n", static_cast<long>(second),
              continued->metrics.at("train.loss"), static_cast<long>(continued->step));
  return first == -1 && second == 40 && continued->step == 60 && continued->metrics.at("train.loss") < 0.4 ? 0 : 1;
}

// Data parallel training without the service: rank 0 starts the other ranks as processes of their own and hosts the
// store in which they find each other.
//
//   04_data_parallel [ranks]
//
// Started by torchrun (--no-python), or by hand with WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT set, it is one rank;
// or submit a job to the service, which does that, watches the ranks and restarts them.
#include <spawn.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/parallel/launch_environment.h"
#include "athanor/runner/torch_runner.h"

namespace {

absl::Status Train(const athanor::LaunchedRanks& ranks) {
  athanor::RunnerConfig config;
  const auto problems = athanor::CheckRunnerConfig({{"seed", 1},
                                                    {"epochs", 5},
                                                    {"optim", {{"type", "sgd"}, {"lr", 0.1}, {"momentum", 0.9}}},
                                                    {"dataloader", {{"batch_size", 32}}}},  // on each rank
                                                   &config);
  if (!problems.empty()) return athanor::ToStatus(problems);
  at::Generator generator = at::detail::createCPUGenerator(7);
  const torch::Tensor x = torch::randn({2048, 16}, generator);
  const torch::Tensor y = (x.narrow(1, 0, 8).sum(1) > x.narrow(1, 8, 8).sum(1)).to(torch::kInt64);

  athanor::SeedGenerators(1);
  torch::nn::Sequential net(torch::nn::Linear(16, 32), torch::nn::ReLU(), torch::nn::Linear(32, 2));
  athanor::TorchRunnerOptions options;
  options.model = net.ptr();
  options.datasets = {{"train", *athanor::TensorDataset::Make(x.narrow(0, 0, 1536), y.narrow(0, 0, 1536))},
                      {"test", *athanor::TensorDataset::Make(x.narrow(0, 1536, 512), y.narrow(0, 1536, 512))}};
  options.forward = [net](const athanor::Batch& batch) mutable {
    const torch::Tensor logits = net->forward(batch.input);
    return athanor::StepOutput{torch::nn::functional::cross_entropy(logits, batch.target),
                               {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
  };
  options.members = ranks.members();
  ASSIGN_OR_RETURN(auto runner, athanor::TorchRunner::Create(config, std::move(options)));
  ASSIGN_OR_RETURN(const athanor::RunResult result, runner->Train());
  if (ranks.topology.is_main()) {  // metrics are means over all ranks: every rank has the same
    std::printf("%d ranks, %ld updates: test accuracy %.4f\n", ranks.topology.world_size(),
                static_cast<long>(result.step), result.metrics.at("test.accuracy"));
  }
  return absl::OkStatus();
}

absl::Status RunRank() {
  ASSIGN_OR_RETURN(const athanor::LaunchEnvironment launch, athanor::ReadLaunchEnvironment(std::nullopt));
  ASSIGN_OR_RETURN(const athanor::LaunchedRanks ranks,
                   athanor::JoinLaunchedRanks(launch, athanor::CommConfig(), torch::kCPU));
  return Train(ranks);
}

void SetRank(int rank) {
  setenv("RANK", std::to_string(rank).c_str(), 1);
  setenv("LOCAL_RANK", std::to_string(rank).c_str(), 1);
}

absl::StatusOr<int> FreePort() {
  ASSIGN_OR_RETURN(const auto store, athanor::HostStore::Create({}));
  return store->port();
}

// What a launcher does: the same program once for every other rank, then this process as rank 0.
absl::Status RunAll(const char* program, int world_size) {
  ASSIGN_OR_RETURN(const int port, FreePort());
  setenv("WORLD_SIZE", std::to_string(world_size).c_str(), 1);
  setenv("MASTER_ADDR", "127.0.0.1", 1);
  setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
  std::vector<pid_t> children;
  for (int rank = 1; rank < world_size; ++rank) {
    SetRank(rank);
    std::string name = program;
    char* argv[] = {name.data(), nullptr};
    pid_t child = 0;
    if (posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, argv, environ) != 0)
      return absl::InternalError(absl::StrCat("rank ", rank, " cannot be started"));
    children.push_back(child);
  }
  SetRank(0);
  absl::Status status = RunRank();
  for (const pid_t child : children) {
    int code = 0;
    waitpid(child, &code, 0);
    if (code != 0) status.Update(absl::InternalError("another rank failed"));
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const bool launched = std::getenv("RANK") != nullptr;
  const absl::Status status = launched ? RunRank() : RunAll(argv[0], argc > 1 ? std::atoi(argv[1]) : 2);
  if (status.ok()) return 0;
  std::fprintf(stderr, "04_data_parallel: %s\n", std::string(status.message()).c_str());
  return 1;
}

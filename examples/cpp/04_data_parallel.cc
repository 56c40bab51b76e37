// Data parallel training without the service: rank 0 starts the other ranks as processes of their own and hosts the
// store in which they find each other.
//
//   04_data_parallel [ranks]
//
// On several machines start one process per rank yourself and give each RANK, WORLD_SIZE, STORE_HOST and STORE_PORT; or
// submit a job to the service, which does that, watches the ranks and restarts them.
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
#include "athanor/parallel/process_group.h"
#include "athanor/runner/torch_runner.h"

namespace {

absl::Status Train(athanor::ProcessGroup* group) {
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
  ASSIGN_OR_RETURN(options.topology, athanor::Topology::Create(group->world_size(), group->rank(), group->rank()));
  options.process_group = group;
  ASSIGN_OR_RETURN(auto runner, athanor::TorchRunner::Create(config, std::move(options)));
  ASSIGN_OR_RETURN(const athanor::RunResult result, runner->Train());
  if (group->rank() == 0) {  // metrics are means over all ranks: every rank has the same
    std::printf("%d ranks, %ld updates: test accuracy %.4f\n", group->world_size(), static_cast<long>(result.step),
                result.metrics.at("test.accuracy"));
  }
  return absl::OkStatus();
}

absl::Status RunRank(int rank, int world_size, int port, athanor::HostStore* store) {
  ASSIGN_OR_RETURN(
      auto group,
      athanor::ProcessGroup::Create(
          {.rank = rank, .world_size = world_size, .store_port = port, .prefix = "example", .hosted_store = store}));
  return Train(group.get());
}

absl::StatusOr<pid_t> Spawn(const char* program, int rank, int world_size, int port) {
  std::string arguments[] = {program, std::to_string(world_size), std::to_string(rank), std::to_string(port)};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(), arguments[3].data(), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, argv, environ) != 0)
    return absl::InternalError(absl::StrCat("rank ", rank, " cannot be started"));
  return child;
}

absl::Status RunAll(const char* program, int world_size) {
  ASSIGN_OR_RETURN(auto store, athanor::HostStore::Create({}));
  std::vector<pid_t> children;
  for (int rank = 1; rank < world_size; ++rank) {
    ASSIGN_OR_RETURN(const pid_t child, Spawn(program, rank, world_size, store->port()));
    children.push_back(child);
  }
  absl::Status status = RunRank(0, world_size, store->port(), store.get());
  for (const pid_t child : children) {
    int code = 0;
    waitpid(child, &code, 0);
    if (code != 0) status.Update(absl::InternalError("another rank failed"));
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const int world_size = argc > 1 ? std::atoi(argv[1]) : 2;
  const absl::Status status =
      argc > 3 ? RunRank(std::atoi(argv[2]), world_size, std::atoi(argv[3]), nullptr) : RunAll(argv[0], world_size);
  if (status.ok()) return 0;
  std::fprintf(stderr, "04_data_parallel: %s\n", std::string(status.message()).c_str());
  return 1;
}

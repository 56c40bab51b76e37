// Trains a small classifier with the library alone: no service, no coordinator.
//
//   01_mlp [--config run.yaml] [--steps 1000] [--optim.lr 0.01] …
//
// The data: points in two interleaved spirals. Several ranks: 04_data_parallel.cc.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "athanor/data/tensor_dataset.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/runner/watch/supervisor.h"
#include "athanor/tools/config_file.h"

namespace {

std::shared_ptr<athanor::Dataset> Spirals(int64_t samples, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const torch::Tensor target = torch::randint(2, {samples}, generator, torch::kInt64);
  const torch::Tensor radius = torch::rand({samples}, generator) * 3.0 + 0.3;
  const torch::Tensor angle = radius * 2.0 + target * M_PI;
  const torch::Tensor noise = torch::randn({samples, 2}, generator) * 0.05;
  const torch::Tensor input = torch::stack({radius * angle.cos(), radius * angle.sin()}, 1) + noise;
  return *athanor::TensorDataset::Make(input, target);
}

// Prints a line at every read-out, and stops on SIGTERM or Ctrl-C at a step boundary.
class Console : public athanor::RunnerHooks {
 public:
  explicit Console(const athanor::Supervisor* supervisor) : supervisor_(supervisor) {}
  void OnProgress(const athanor::ProgressReport& progress) override {
    if (progress.phase != athanor::RunnerPhase::kTraining || progress.step == 0 || progress.step % 100 != 0) return;
    std::printf("step %5ld/%ld  loss %.4f  %.0f samples/s\n", static_cast<long>(progress.step),
                static_cast<long>(progress.total_steps), progress.loss, progress.samples_per_second);
  }
  bool StopRequested() const override { return supervisor_->StopRequested(); }

 private:
  const athanor::Supervisor* supervisor_;
};

absl::Status Run(int argc, char** argv) {
  const auto config = athanor::ReadRunConfig(argc, argv,
                                             {{"seed", 1},
                                              {"steps", 1000},
                                              {"log_interval", 100},
                                              {"max_grad_norm", 1.0},
                                              {"optim", {{"type", "adamw"}, {"lr", 0.01}}},
                                              {"sched", {{"type", "cosine"}}},
                                              {"evaluate", {{"interval", 200}}},
                                              {"dataloader", {{"batch_size", 64}}}});
  if (!config.ok()) return config.status();

  athanor::SeedGenerators(1);
  torch::nn::Sequential net(torch::nn::Linear(2, 64), torch::nn::ReLU(), torch::nn::Linear(64, 64), torch::nn::ReLU(),
                            torch::nn::Linear(64, 2));
  auto supervisor = athanor::Supervisor::Install();
  if (!supervisor.ok()) return supervisor.status();
  Console console(supervisor->get());

  athanor::TorchRunnerOptions options;
  options.model = net.ptr();
  options.datasets = {{"train", Spirals(4000, 1)}, {"test", Spirals(1000, 2)}};
  options.forward = [net](const athanor::Batch& batch) mutable {
    const torch::Tensor logits = net->forward(batch.input);
    return athanor::StepOutput{torch::nn::functional::cross_entropy(logits, batch.target),
                               {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
  };
  options.hooks = &console;
  auto runner = athanor::TorchRunner::Create(*config, std::move(options));
  if (!runner.ok()) return runner.status();
  const auto result = (*runner)->Train();
  if (!result.ok()) return result.status();
  std::printf("%s at step %ld: test accuracy %.4f\n",
              result->outcome == athanor::RunOutcome::kFinished ? "finished" : "stopped",
              static_cast<long>(result->step),
              result->metrics.count("test.accuracy") > 0 ? result->metrics.at("test.accuracy") : std::nan(""));
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Run(argc, argv);
  if (status.ok()) return 0;
  if (absl::IsCancelled(status)) {  // --help
    std::printf("%s\n", std::string(status.message()).c_str());
    return 0;
  }
  std::fprintf(stderr, "01_mlp: %s\n", std::string(status.message()).c_str());
  return 1;
}

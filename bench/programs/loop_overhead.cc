// Steps per second of TorchRunner beside a loop written by hand with LibTorch alone: same model, data, batch size and
// fused AdamW, one process, one thread. The two take turns.
//
//   bench_loop_overhead '{"steps": 2000, "rounds": 5, "hidden": 256, "batch_size": 32}'
#include <torch/torch.h>

#include <memory>

#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/runner/torch_runner.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

constexpr int64_t kSamples = 1438, kInputs = 64, kClasses = 10, kWarmUp = 100;
constexpr double kLearningRate = 1e-3, kWeightDecay = 0.01;

struct Problem {
  torch::Tensor input, target;
  int64_t steps = 0, batch_size = 0, hidden = 0;
};

torch::nn::Sequential MakeModel(int64_t hidden) {
  torch::manual_seed(1);
  return torch::nn::Sequential(torch::nn::Linear(kInputs, hidden), torch::nn::ReLU(), torch::nn::Linear(hidden, hidden),
                               torch::nn::ReLU(), torch::nn::Linear(hidden, kClasses));
}

// What someone writes who wants nothing but speed.
class BareLoop {
 public:
  explicit BareLoop(const Problem& problem) : problem_(problem), model_(MakeModel(problem.hidden)) {
    for (const torch::Tensor& parameter : model_->parameters()) {
      parameters_.push_back(parameter);
      mean_.push_back(torch::zeros_like(parameter));
      square_.push_back(torch::zeros_like(parameter));
      steps_.push_back(torch::zeros({}, torch::kFloat32));
    }
  }
  double StepsPerSecond() {
    Clock::time_point began;
    for (int64_t step = 0; step < problem_.steps; ++step) {
      if (step == kWarmUp) began = Clock::now();
      Step();
    }
    return static_cast<double>(problem_.steps - kWarmUp) / SecondsSince(began);
  }

 private:
  void Step() {
    if (at_ + problem_.batch_size > kSamples) order_.reset();
    if (!order_.defined()) {
      order_ = torch::randperm(kSamples, torch::kInt64);
      at_ = 0;
    }
    const torch::Tensor rows = order_.narrow(0, at_, problem_.batch_size);
    at_ += problem_.batch_size;
    const torch::Tensor logits = model_->forward(problem_.input.index_select(0, rows));
    const torch::Tensor loss = torch::cross_entropy_loss(logits, problem_.target.index_select(0, rows));
    loss.backward();
    torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> gradients;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      gradients.push_back(parameters_[i].grad());
      steps_[i] += 1;
    }
    at::_fused_adamw_(parameters_, gradients, mean_, square_, {}, steps_, kLearningRate, 0.9, 0.999, kWeightDecay, 1e-8,
                      /*amsgrad=*/false, /*maximize=*/false, std::nullopt, std::nullopt);
    for (torch::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
  }

  const Problem& problem_;
  torch::nn::Sequential model_;
  std::vector<torch::Tensor> parameters_, mean_, square_, steps_;
  torch::Tensor order_;
  int64_t at_ = 0;
};

class StopWatch : public RunnerHooks {
 public:
  void OnProgress(const ProgressReport& progress) override {
    if (progress.step == kWarmUp && progress.phase == RunnerPhase::kTraining) began_ = Clock::now();
    if (progress.step == progress.total_steps && progress.phase == RunnerPhase::kTraining)
      seconds_ = SecondsSince(began_);
  }
  double seconds() const { return seconds_; }

 private:
  Clock::time_point began_;
  double seconds_ = 0;
};

absl::StatusOr<double> RunnerStepsPerSecond(const Problem& problem) {
  RunnerConfig config;
  const nlohmann::json json = {{"seed", 1},
                               {"steps", problem.steps},
                               {"log_interval", 100},
                               {"optim", {{"type", "adamw"}, {"lr", kLearningRate}, {"weight_decay", kWeightDecay}}},
                               {"dataloader", {{"batch_size", problem.batch_size}}}};
  RETURN_IF_ERROR(ToStatus(CheckRunnerConfig(json, &config)));
  torch::nn::Sequential model = MakeModel(problem.hidden);
  StopWatch watch;
  TorchRunnerOptions options;
  options.model = model.ptr();
  ASSIGN_OR_RETURN(options.datasets["train"], TensorDataset::Make(problem.input, problem.target));
  options.forward = [model](const Batch& batch) mutable {
    return StepOutput{torch::cross_entropy_loss(model->forward(batch.input), batch.target), {}, {}};
  };
  options.hooks = &watch;
  ASSIGN_OR_RETURN(const std::unique_ptr<TorchRunner> runner, TorchRunner::Create(config, std::move(options)));
  RETURN_IF_ERROR(runner->Train().status());
  return static_cast<double>(problem.steps - kWarmUp) / watch.seconds();
}

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  torch::set_num_threads(1);
  torch::manual_seed(1);
  const Problem problem{torch::rand({kSamples, kInputs}), torch::randint(kClasses, {kSamples}, torch::kInt64),
                        settings["steps"], settings["batch_size"], settings["hidden"]};
  std::vector<double> bare, runner;
  for (int64_t round = 0; round < settings["rounds"].get<int64_t>(); ++round) {
    bare.push_back(BareLoop(problem).StepsPerSecond());
    ASSIGN_OR_RETURN(const double rate, RunnerStepsPerSecond(problem));
    runner.push_back(rate);
  }
  return nlohmann::json{{"bare_steps_per_second", bare}, {"runner_steps_per_second", runner}};
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(argc, argv, {{"steps", 2000}, {"rounds", 5}, {"hidden", 256}, {"batch_size", 32}},
                              athanor::bench::Run);
}

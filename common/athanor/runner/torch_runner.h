// Trains one module with data parallelism: forward, backward with accumulation, exchange, clipping, optimizer,
// schedule.
//
//   TorchRunnerOptions options;
//   options.model = model;                                   // torch::nn::Module
//   options.datasets = {{"train", train}, {"test", test}};
//   options.forward = [&](const Batch& batch) { ... return StepOutput{loss, {{"accuracy", accuracy}}}; };
//   ASSIGN_OR_RETURN(auto runner, TorchRunner::Create(config, std::move(options)));
//   ASSIGN_OR_RETURN(RunResult result, runner->Train());
//
// Exact: a run that stops after any update and is resumed from its checkpoint computes what the undisturbed run
// computes, bit for bit (same number of ranks, deterministic kernels): model, optimizer, schedule, random states, order
// and position of the data are all restored.
//
// The gradient of an update is the mean over the samples (with StepOutput::weight: over what the weights count) of its
// window of `accum_steps` micro-batches on all ranks; the last window of a pass holds what is left, and is divided by
// that. Ranks that count different numbers of samples (dataloader.on_damage: skip, a dataset that leaves samples out)
// agree on the divisor.
//
// Each step can be overridden by itself:
//
//   class Gan : public TorchRunner {
//    public:
//     using TorchRunner::TorchRunner;
//     StepOutput TrainStep(const Batch& batch) override { ... Accumulate(output, batch); return output; }
//   };
//   ASSIGN_OR_RETURN(std::unique_ptr<Gan> runner, TorchRunner::Make<Gan>(config, std::move(options)));
//
// Not thread-safe: one training thread. See base_runner.h for Train(), Evaluate(), Restore() and SaveCheckpoint().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/runner_config.h"
#include "athanor/optim/optimizer_container.h"
#include "athanor/parallel/agree_on_status.h"
#include "athanor/runner/base_runner.h"
#include "athanor/runner/step/torch_options.h"
#include "athanor/runner/step/torch_steps.h"

namespace athanor {

class TorchTraining;

class TorchRunner : public BaseRunner, protected TorchSteps {
 public:
  // Collective when there is a process group. INVALID_ARGUMENT (kind invalid) names what is missing or contradictory.
  // Changes the process: seeds its generators with seed + rank, and on the CPU keeps freed memory and lets go of
  // start-up code (KeepHostMemory(), ForgetStartupCode() in athanor/torch/host_memory.h). With `config.seed` unset
  // rank 0 draws one; it is kept in the checkpoints.
  static absl::StatusOr<std::unique_ptr<TorchRunner>> Create(RunnerConfig config, TorchRunnerOptions options);
  // The same for a class of your own, whose constructor takes the config, the options and `more`. `options.forward` may
  // be left out: then the class overrides the steps that call it.
  template <class Runner, class... More>
  static absl::StatusOr<std::unique_ptr<Runner>> Make(RunnerConfig config, TorchRunnerOptions options, More&&... more) {
    RETURN_IF_ERROR(AgreeOnStatus(options.members, CheckOptions(config, options)));
    std::unique_ptr<Runner> runner(new Runner(std::move(config), std::move(options), std::forward<More>(more)...));
    RETURN_IF_ERROR(static_cast<TorchRunner*>(runner.get())->Build());
    return runner;
  }
  // A runner with the configuration and the state that a checkpoint holds. `path` as for CandidateAt()
  // (athanor/checkpoint/checkpoint_reader.h). `change`: edits the configuration before use, such as more steps.
  static absl::StatusOr<std::unique_ptr<TorchRunner>> FromCheckpoint(
      const std::string& path, TorchRunnerOptions options, const std::function<void(RunnerConfig*)>& change = nullptr);
  // A runner that starts from the weights at `path` (see ReadWeights() in pretrained.h) and nothing else.
  static absl::StatusOr<std::unique_ptr<TorchRunner>> FromPretrained(RunnerConfig config, const std::string& path,
                                                                     TorchRunnerOptions options);
  ~TorchRunner() override;

  // Takes one batch's prediction, on the CPU; anything but OK ends the inference.
  using PredictionSink = std::function<absl::Status(const Batch& batch, torch::Tensor prediction)>;
  // Runs `predict` over this rank's samples of the split, in order, in eval mode without gradients, with the average of
  // the weights where there is one; at most `max_batches` of them (-1: all). Streams: nothing is kept. The restore is
  // collective, and with `fsdp.shard: parameters` so is all of it, over as many batches on each rank.
  // NOT_FOUND lists the splits; FAILED_PRECONDITION without `predict`.
  absl::Status Infer(const std::string& split, const PredictionSink& sink, int64_t max_batches = -1);
  // The same, collected: N x ..., a last dimension of 1 taken away.
  absl::StatusOr<torch::Tensor> Infer(const std::string& split, int64_t max_batches = -1);

  // The model from the checkpoint or weights file at `path`, and nothing else. INVALID_ARGUMENT names what does not
  // fit.
  absl::Status LoadPretrained(const std::string& path) override;

  // With `fsdp` its parameters are there only while a step uses them: ask Weights() for their values.
  torch::nn::Module& model();
  // Copies of the parameters and buffers, whole and on the CPU, under every name that they have. Collective.
  absl::StatusOr<TensorMap> Weights();
  const Optimizer& optimizer() const;
  uint64_t seed() const;
  // With `compile.enable`: how often a micro-batch, and an update, was one launch of a graph.
  int64_t step_replays() const;
  int64_t update_replays() const;

 protected:
  // For Make().
  TorchRunner(RunnerConfig config, TorchRunnerOptions options);

  // The steps. Batches are on the model's device. They may throw: the exception is the user's (kind user_code), or
  // says what it is (out of memory, a lost peer).

  // One micro-batch: the loss, its gradients (Accumulate()), and what is to be measured.
  StepOutput TrainStep(const Batch& batch) override;
  // In eval mode without gradients. `batch.size` 0: padding only, run for the names of its metrics.
  StepOutput EvaluateStep(const Batch& batch) override;
  // The prediction for a batch, whose first dimension is the batch's.
  torch::Tensor InferStep(const Batch& batch) override;
  // Adds d loss / d parameter to the gradients. `loss` has its weight in the window already.
  void Backward(const torch::Tensor& loss) override;
  // The update from the window's gradients, times `factor` (a 0-dim tensor, or a number): check, clip, step, schedules,
  // average of the weights, gradients cleared. False: left out. Not called for optim.type lbfgs, which evaluates the
  // window as often as it wants.
  absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>& factor) override;

  // What TrainStep() and EvaluateStep() do first: `options.forward` under autocast, its output checked.
  StepOutput Forward(const Batch& batch);
  // Weighs the output's loss within its window, and calls Backward(). Once per micro-batch.
  void Accumulate(const StepOutput& output, const Batch& batch);
  OptimizerContainer& optimizer_container();
  // Goes on with other ranks from here: the exchange of gradients, the agreements, the metrics, the checkpoints and the
  // shares of the data are of `members` afterwards, and rank 0's weights and buffers are everybody's. What was measured
  // and where the data stands stays. Between two updates (the start of TrainUpdate() is such a place), by every rank of
  // `members` at the same step; the group of before is not used any more.
  absl::Status Reseat(const Membership& members);

  absl::StatusOr<StepResult> TrainUpdate() override;
  absl::Status EpochEnded(std::optional<double> metric) override;
  std::optional<std::string> schedule_monitor() const override;
  absl::StatusOr<std::map<std::string, double>> EvaluateSplit(const std::string& split, int64_t max_batches) override;
  absl::StatusOr<TrainingState> CaptureState(bool model_only) override;
  absl::Status LoadState(const RestoredState& restored, const StateParts& parts) override;
  int64_t StepsPerEpoch() const override;
  double EpochFraction() const override;
  void ReadStepMetrics(std::map<std::string, double>* metrics) override;
  PartsWanted WantedParts() const override;
  std::vector<torch::Tensor> ReplicatedWeights() const override;
  std::vector<std::pair<std::string, int64_t>> MemoryParts() const override;

 private:
  static absl::Status CheckOptions(const RunnerConfig& config, const TorchRunnerOptions& options);
  absl::Status Build();

  std::unique_ptr<TorchTraining> training_;
};

}  // namespace athanor

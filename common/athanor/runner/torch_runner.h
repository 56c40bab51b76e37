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
#include "athanor/data/dataset.h"
#include "athanor/data/stateful_data_loader.h"
#include "athanor/data/tolerant_dataset.h"
#include "athanor/data/train_splits.h"
#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_set.h"
#include "athanor/optim/lr_scheduler.h"
#include "athanor/optim/optimizer_container.h"
#include "athanor/parallel/agree_on_status.h"
#include "athanor/parallel/gradient_reducer.h"
#include "athanor/runner/base_runner.h"
#include "athanor/runner/step/model_average.h"
#include "athanor/runner/step/precision.h"
#include "athanor/runner/step/step_graph.h"
#include "athanor/runner/step/step_output.h"
#include "athanor/torch/fp8_linear.h"

namespace athanor {

struct TorchRunnerOptions : BaseRunnerOptions {
  // Moved to `device`; rank 0's initial weights count. Made before Create(), it has weights that `config.seed` does not
  // determine: use `make_model` for these, or call SeedGenerators() (runner_state.h) first.
  std::shared_ptr<torch::nn::Module> model;
  // In place of `model`: called once by Create(), after the generators were seeded. Keeps what `forward` needs.
  std::function<std::shared_ptr<torch::nn::Module>()> make_model;
  std::map<std::string, std::shared_ptr<Dataset>> datasets;  // "train", or those of config.train_splits, are required
  ForwardFn forward;
  // For Infer(): the prediction for a batch, whose first dimension is the batch's. Its target may be undefined.
  std::function<torch::Tensor(const Batch& batch)> predict;
  // Metrics of StepOutput::scores and labels, or of StepOutput::tasks: one set for training, one for every evaluation.
  // `sync` is over the ranks and goes into the set; null on one rank. Read out, and begun anew, with the mean loss.
  std::function<absl::StatusOr<std::unique_ptr<MetricSet>>(std::shared_ptr<MeterSync> sync)> metrics;
  torch::Device device = torch::kCPU;
  std::shared_ptr<DeviceGraphs> graphs;  // what `compile.enable` captures with; null: the device's own (CUDA graphs)
  bool find_unused_parameters = false;   // a forward pass may leave parameters out (differently from rank to rank)
  // A program that a launcher started as one of several ranks and that never joins them (launch_environment.h) would
  // train as many times in one folder, and is refused. True: that is what is wanted, each in a folder of its own.
  bool alone = false;
};

class TorchRunner : public BaseRunner {
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
    RETURN_IF_ERROR(AgreeOnStatus(options.process_group, CheckOptions(config, options)));
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
  // the weights where there is one; at most `max_batches` of them (-1: all). Streams: nothing is kept. Not collective,
  // but for the restore. NOT_FOUND lists the splits; FAILED_PRECONDITION without `predict`.
  absl::Status Infer(const std::string& split, const PredictionSink& sink, int64_t max_batches = -1);
  // The same, collected: N x ..., a last dimension of 1 taken away.
  absl::StatusOr<torch::Tensor> Infer(const std::string& split, int64_t max_batches = -1);

  // The model from the checkpoint or weights file at `path`, and nothing else. INVALID_ARGUMENT names what does not
  // fit.
  absl::Status LoadPretrained(const std::string& path) override;

  torch::nn::Module& model() { return *model_; }
  const Optimizer& optimizer() const { return *optimizer_; }
  uint64_t seed() const { return seed_; }
  // With `compile.enable`: how often a micro-batch, and an update, was one launch of a graph.
  int64_t step_replays() const { return graph_ == nullptr ? 0 : graph_->replays(); }
  int64_t update_replays() const { return container_->replays(); }

 protected:
  // For Make().
  TorchRunner(RunnerConfig config, TorchRunnerOptions options);

  // The steps. Batches are on the model's device. They may throw: the exception is the user's (kind user_code), or
  // says what it is (out of memory, a lost peer).

  // One micro-batch: the loss, its gradients (Accumulate()), and what is to be measured.
  virtual StepOutput TrainStep(const Batch& batch);
  // In eval mode without gradients. `batch.size` 0: padding only, run for the names of its metrics.
  virtual StepOutput EvaluateStep(const Batch& batch);
  // The prediction for a batch, whose first dimension is the batch's.
  virtual torch::Tensor InferStep(const Batch& batch);
  // Adds d loss / d parameter to the gradients. `loss` has its weight in the window already.
  virtual void Backward(const torch::Tensor& loss);
  // The update from the window's gradients, times `factor` (a 0-dim tensor, or a number): check, clip, step, schedules,
  // average of the weights, gradients cleared. False: left out. Not called for optim.type lbfgs, which evaluates the
  // window as often as it wants.
  virtual absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>& factor);

  // What TrainStep() and EvaluateStep() do first: `options.forward` under autocast, its output checked.
  StepOutput Forward(const Batch& batch);
  // Weighs the output's loss within its window, and calls Backward(). Once per micro-batch.
  void Accumulate(const StepOutput& output, const Batch& batch);
  OptimizerContainer& optimizer_container() { return *container_; }

  absl::StatusOr<StepResult> TrainUpdate() override;
  absl::Status EpochEnded(std::optional<double> metric) override;
  std::optional<std::string> schedule_monitor() const override;
  absl::StatusOr<std::map<std::string, double>> EvaluateSplit(const std::string& split, int64_t max_batches) override;
  absl::StatusOr<TrainingState> CaptureState(bool model_only) override;
  absl::Status LoadState(const RestoredState& restored, bool weights_only) override;
  int64_t StepsPerEpoch() const override;
  double EpochFraction() const override;
  void ReadStepMetrics(std::map<std::string, double>* metrics) override;
  torch::Device device() const override { return device_; }
  std::vector<torch::Tensor> ReplicatedWeights() const override { return model_->parameters(); }
  std::vector<std::pair<std::string, int64_t>> MemoryParts() const override;

 private:
  static absl::Status CheckOptions(const RunnerConfig& config, const TorchRunnerOptions& options);
  absl::Status Build();
  absl::Status BuildData(std::vector<std::string>* evaluated);
  absl::Status BuildTraining();
  absl::Status ResolveSeed();
  absl::Status MakeModel();
  absl::Status CheckLoaderSplits() const;
  std::string SplitNames() const;
  void TolerateDamage();
  absl::Status BuildModel();
  absl::Status BuildAcceleration();
  absl::Status BuildOptimizer();
  absl::StatusOr<std::unique_ptr<StatefulDataLoader>> BuildLoader(const std::string& split, bool train) const;
  absl::StatusOr<std::unique_ptr<TrainSplits>> BuildTrainLoaders() const;
  absl::StatusOr<std::vector<std::string>> EvaluateSplits() const;
  absl::StatusOr<StatefulDataLoader*> EvaluationLoader(const std::string& split);

  void BeginWindow();
  absl::Status WindowUpdate(StepResult* result);
  absl::Status ClosureUpdate(StepResult* result);
  torch::Tensor EvaluateWindow(const std::vector<Batch>& window, double divisor, bool measure, StepTimes* times,
                               absl::Status* failed);
  absl::StatusOr<Batch> NextMicroBatch(double* divisor, StepResult* result);
  void ForwardBackward(const Batch& batch, StepTimes* times, bool measure);
  absl::StatusOr<bool> Update(double divisor);
  torch::Tensor WeightedLoss(const StepOutput& output);
  std::variant<double, torch::Tensor> WindowFactor(double divisor);
  absl::StatusOr<std::unique_ptr<MetricSet>> MakeMetrics() const;
  absl::Status AgreeOnTotal(double divisor);
  Batch ToDevice(Batch batch) const;
  void DropGradients();
  bool GradientsStay() const;
  absl::Status ForwardAll(StatefulDataLoader* loader, StepMeters* meters, int64_t max_batches);
  absl::Status PredictAll(StatefulDataLoader* loader, const PredictionSink& sink, int64_t max_batches);

  absl::Status CheckParameters() const;
  absl::Status LoadModel(const TensorMap& tensors);
  absl::Status LoadProgress(const RestoredState& restored);
  absl::Status LoadDataPosition(const nlohmann::json& meta);
  absl::Status EndPassOf(const nlohmann::json& meta);
  bool OnlyModelWanted() const;

  std::shared_ptr<torch::nn::Module> model_;
  const std::function<std::shared_ptr<torch::nn::Module>()> make_model_;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
  std::map<std::string, std::shared_ptr<TolerantDataset>> tolerant_;  // those with dataloader.on_damage: skip
  ForwardFn forward_;
  std::function<torch::Tensor(const Batch&)> predict_;
  std::function<absl::StatusOr<std::unique_ptr<MetricSet>>(std::shared_ptr<MeterSync>)> make_metrics_;
  const torch::Device device_;
  const bool find_unused_;
  std::shared_ptr<DeviceGraphs> graphs_;  // null: nothing is captured
  uint64_t seed_ = 0;
  std::unique_ptr<GradientReducer> reducer_;  // null: one rank
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<LrScheduler> scheduler_;
  std::unique_ptr<ModelAverage> average_;
  GradientScale gradient_scale_;
  std::optional<Fp8Recipe> fp8_;      // unset: no linear layers in 8 bits
  std::unique_ptr<StepGraph> graph_;  // null: step by step
  std::unique_ptr<TrainSplits> loader_;
  std::map<std::string, std::unique_ptr<StatefulDataLoader>> evaluation_loaders_;
  std::unique_ptr<OptimizerContainer> container_;
  torch::Tensor window_weight_;  // sum of the window's StepOutput::weight; undefined: samples count
  torch::Tensor window_total_;   // what the window is divided by, of all ranks; undefined: each knows it by itself
  torch::Tensor window_loss_;    // sum of the window's weighed losses; only for optimizers that ask for it
  int64_t window_batches_ = 0;
  bool window_ends_ = false;     // with the micro-batch under way
  double backward_seconds_ = 0;  // of it
  bool first_update_ = true;
  bool uneven_ranks_ = false;  // a rank's batches may hold fewer samples than another's
};

}  // namespace athanor

#include "athanor/runner/torch_runner.h"

#include <ATen/record_function.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/batch_device.h"
#include "athanor/runner/watch/memory_report.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

// A graph goes on with the memory that it was captured with.
std::map<std::string, const void*> BufferPlaces(const torch::nn::Module& model) {
  std::map<std::string, const void*> places;
  for (const auto& [name, buffer] : DistinctBuffers(model)) places[name] = buffer.const_data_ptr();
  return places;
}

}  // namespace

absl::StatusOr<StepResult> TorchRunner::TrainUpdate() {
  StepResult result;
  RETURN_IF_ERROR(optimizer_->needs_closure() ? ClosureUpdate(&result) : WindowUpdate(&result));
  result.epoch_ended = loader_->Advance(state_.step + (result.updated ? 1 : 0));
  if (first_update_ && options_.process_group != nullptr) {
    options_.process_group->SetTimeout(absl::Seconds(config_.comm.train_timeout_seconds));
  }
  first_update_ = false;
  return result;
}

void TorchRunner::BeginWindow() {
  window_ends_ = false;
  // A graph goes on adding to the tensor that it was captured with.
  if (graph_ != nullptr && window_weight_.defined()) {
    window_weight_.zero_();
  } else {
    window_weight_.reset();
  }
  window_loss_.reset();
  window_batches_ = 0;
}

absl::Status TorchRunner::WindowUpdate(StepResult* result) {
  double divisor = 0;
  BeginWindow();
  while (!window_ends_) {
    ASSIGN_OR_RETURN(const Batch batch, NextMicroBatch(&divisor, result));
    RETURN_IF_ERROR(RunTorch("training step", [&] { ForwardBackward(ToDevice(batch), &result->times, true); }));
  }
  Telemetry::Clock clock;
  result->scale_search = gradient_scale_.searching();
  ASSIGN_OR_RETURN(result->updated, Update(divisor));
  result->scale_search = result->scale_search && !result->updated;
  result->times.optimizer = clock.Lap();
  return absl::OkStatus();
}

absl::StatusOr<Batch> TorchRunner::NextMicroBatch(double* divisor, StepResult* result) {
  Telemetry::Clock clock;
  absl::StatusOr<Batch> batch;
  {
    RECORD_USER_SCOPE("data");
    batch = loader_->Next();
  }
  if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "training data"), FailureKind::kData);
  ++result->micro_batches;
  result->samples += batch->size;
  *divisor += static_cast<double>(batch->size) / static_cast<double>(loader_->batch_size());
  window_ends_ = result->micro_batches == config_.accum_steps || loader_->pass_ends();
  result->times.data += clock.Lap();
  return batch;
}

void TorchRunner::ForwardBackward(const Batch& batch, StepTimes* times, bool measure) {
  Telemetry::Clock clock;
  backward_seconds_ = 0;
  const int64_t before = window_batches_;
  const auto step = [&](const Batch& one) {
    StepOutput output = TrainStep(one);
    TORCH_CHECK(window_batches_ == before + 1, "TrainStep() must call Accumulate() once; it did so ",
                window_batches_ - before, " times");
    return output;
  };
  const bool watch = graph_ != nullptr && first_update_;
  const auto places = watch ? BufferPlaces(*model_) : std::map<std::string, const void*>();
  const StepOutput output = graph_ == nullptr ? step(batch) : graph_->Run(batch, window_ends_, step);
  if (watch) {
    for (const auto& [name, place] : BufferPlaces(*model_)) {
      TORCH_CHECK(places.contains(name) && places.at(name) == place, "compile.enable: the model assigns its buffer '",
                  name, "' anew in each step, which a graph cannot repeat; change it in place, or leave compile out");
    }
  }
  window_batches_ = before + 1;
  if (measure) meters_.Add(output, batch.size);
  times->forward += clock.Lap() - backward_seconds_;
  times->backward += backward_seconds_;
}

StepOutput TorchRunner::TrainStep(const Batch& batch) {
  StepOutput output = Forward(batch);
  Accumulate(output, batch);
  return output;
}

void TorchRunner::Accumulate(const StepOutput& output, const Batch& batch) {
  Telemetry::Clock clock;
  const bool first = window_batches_++ == 0;
  TORCH_CHECK(first || output.weight.defined() == window_weight_.defined(),
              "the forward function gave a weight for some micro-batches of a window and none for others");
  torch::Tensor loss = output.weight.defined() ? WeightedLoss(output) : output.loss;
  const bool whole = config_.accum_steps == 1 && !uneven_ranks_;
  const double share = whole || output.weight.defined()
                           ? 1.0
                           : static_cast<double>(batch.size) / static_cast<double>(loader_->batch_size());
  const double weight = share * gradient_scale_.scale();
  // Of its own type a float16 loss would overflow.
  if (weight != 1.0) loss = (loss.scalar_type() == torch::kHalf ? loss.to(torch::kFloat32) : loss) * weight;
  if (optimizer_->needs_closure())
    window_loss_ = window_loss_.defined() ? window_loss_ + loss.detach() : loss.detach().clone();
  RECORD_USER_SCOPE("backward");
  // Without preparation the reducer stays out of the way: gradients add up locally.
  if (window_ends_ && options_.process_group != nullptr) MarkExchange();
  if (window_ends_ && reducer_ != nullptr) reducer_->PrepareForBackward(loss);
  Backward(loss);
  if (window_ends_ && reducer_ != nullptr) reducer_->FinishBackward();
  backward_seconds_ += clock.Lap();
}

void TorchRunner::Backward(const torch::Tensor& loss) {
  loss.backward();
}

torch::Tensor TorchRunner::WeightedLoss(const StepOutput& output) {
  TORCH_CHECK(output.weight.numel() == 1, "the forward function returned a weight of shape ", output.weight.sizes(),
              "; it must be one number");
  const torch::Tensor weight = output.weight.detach().reshape({}).to(torch::kFloat64);
  window_weight_ = window_weight_.defined() ? window_weight_.add_(weight) : weight.clone();
  // The mean of nothing is NaN: it must not get into the window's sum.
  const torch::Tensor loss = output.loss.reshape({});
  return torch::where(weight > 0, loss, torch::zeros_like(loss)) * weight.to(loss.scalar_type());
}

// Gradients are averaged over the ranks, so the total is, too. Micro-batches are equally long on all ranks (the sampler
// pads) unless a dataset leaves samples out: then, and with weights, it needs an exchange.
absl::Status TorchRunner::AgreeOnTotal(double divisor) {
  window_total_ = window_weight_;
  ProcessGroup* group = options_.process_group;
  if (group == nullptr || group->world_size() == 1) return absl::OkStatus();
  if (first_update_) {
    ASSIGN_OR_RETURN(const Agreement weighted, group->AllAgree({window_weight_.defined() ? 1 : 0}));
    if (weighted.min[0] != weighted.max[0]) {
      return WithFailureKind(
          absl::InvalidArgumentError("the forward function gave weights on some ranks and none on others"),
          FailureKind::kUserCode);
    }
  }
  if (!window_total_.defined()) {
    if (!uneven_ranks_) return absl::OkStatus();
    window_total_ = torch::full({}, divisor, torch::dtype(torch::kFloat64).device(device_));
  }
  RETURN_IF_ERROR(group->AllReduceSum(window_total_));
  window_total_ /= group->world_size();
  return absl::OkStatus();
}

// From sums over the window to its mean; takes the scale of float16 losses away.
std::variant<double, torch::Tensor> TorchRunner::WindowFactor(double divisor) {
  if (!window_total_.defined()) return (config_.accum_steps == 1 ? 1.0 : 1.0 / divisor) / gradient_scale_.scale();
  const torch::Tensor factor = torch::where(window_total_ > 0, 1.0 / window_total_, torch::zeros_like(window_total_));
  return factor / gradient_scale_.scale();
}

absl::StatusOr<bool> TorchRunner::Update(double divisor) {
  RECORD_USER_SCOPE("optimizer");
  container_->MeasureNorm(ReadOutFollows());
  container_->UseGraphs(GradientsStay());
  RETURN_IF_ERROR(AgreeOnTotal(divisor));
  absl::StatusOr<bool> updated = false;
  RETURN_IF_ERROR(RunTorch("optimizer step", [&] { updated = OptimizerStep(WindowFactor(divisor)); }));
  if (updated.ok()) gradient_scale_.Update(/*overflow=*/!*updated);
  return updated;
}

absl::StatusOr<bool> TorchRunner::OptimizerStep(const std::variant<double, torch::Tensor>& factor) {
  ASSIGN_OR_RETURN(const bool updated, std::visit([this](const auto& one) { return container_->Step(one); }, factor));
  if (updated && average_ != nullptr) average_->Update();
  return updated;
}

// Graphs go on adding to the tensors that they were captured with.
bool TorchRunner::GradientsStay() const {
  return graph_ != nullptr && (reducer_ == nullptr || reducer_->settled());
}

void TorchRunner::DropGradients() {
  if (GradientsStay()) {
    optimizer_->ZeroGrad();
    return;
  }
  if (reducer_ != nullptr) {
    reducer_->DropGradients();
    return;
  }
  for (torch::Tensor parameter : optimizer_->parameters()) parameter.mutable_grad().reset();
}

Batch TorchRunner::ToDevice(Batch batch) const {
  if (device_.is_cpu()) return batch;
  return athanor::ToDevice(std::move(batch), device_);
}

StepOutput TorchRunner::Forward(const Batch& batch) {
  TORCH_CHECK(forward_ != nullptr, "the runner has no forward function, and the step is not overridden");
  StepOutput output;
  {
    RECORD_USER_SCOPE("forward");
    AutocastScope autocast(config_.precision, device_);
    Fp8Scope fp8(fp8_);
    output = forward_(batch);
  }
  TORCH_CHECK(output.loss.defined(), "the forward function returned no loss");
  TORCH_CHECK(output.loss.numel() == 1, "the forward function returned a loss of shape ", output.loss.sizes(),
              "; it must be one number");
  for (const auto& [name, value] : output.metrics) {
    TORCH_CHECK(value.defined() && value.numel() == 1, "metric '", name, "' must be one number");
  }
  return output;
}

absl::Status TorchRunner::EpochEnded(std::optional<double> metric) {
  RETURN_IF_ERROR(container_->StepEpoch(metric));
  loader_->NextRound(state_.step, /*more=*/!Done());
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, double>> TorchRunner::EvaluateSplit(const std::string& split,
                                                                         int64_t max_batches) {
  StatefulDataLoader* loader = nullptr;
  StepMeters meters;
  RETURN_IF_ERROR(Together("evaluate", [&]() -> absl::Status {
    absl::StatusOr<StatefulDataLoader*> found = EvaluationLoader(split);
    if (!found.ok()) return Annotate(found.status(), "evaluate");
    loader = *found;
    ASSIGN_OR_RETURN(std::unique_ptr<MetricSet> metrics, MakeMetrics());
    meters.SetMetrics(std::move(metrics));
    return absl::OkStatus();
  }));
  if (reducer_ != nullptr) RETURN_IF_ERROR(reducer_->SyncBuffers());
  absl::Status done;
  {
    const ModelAverage::Swap swap(average_.get());
    model_->eval();
    done = ForwardAll(loader, &meters, max_batches);
    model_->train();
  }
  if (options_.process_group != nullptr) MarkExchange();
  RETURN_IF_ERROR(AgreeOnStatus(options_.process_group, done));
  return meters.Means(options_.process_group);
}

absl::Status TorchRunner::ForwardAll(StatefulDataLoader* loader, StepMeters* meters, int64_t max_batches) {
  torch::NoGradGuard no_grad;
  loader->StartEpoch(0);
  for (int64_t count = 0; max_batches < 0 || count < max_batches; ++count) {
    absl::StatusOr<Batch> batch = loader->Next();
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "evaluation data"), FailureKind::kData);
    RETURN_IF_ERROR(RunTorch("evaluation step", [&] { meters->Add(EvaluateStep(ToDevice(*batch)), batch->size); }));
    MarkEvaluated();
  }
  return absl::OkStatus();
}

StepOutput TorchRunner::EvaluateStep(const Batch& batch) {
  return Forward(batch);
}

void TorchRunner::ReadStepMetrics(std::map<std::string, double>* metrics) {
  (*metrics)["lr"] = optimizer_->lr();
  if (container_->grad_norm().defined()) (*metrics)["grad_norm"] = container_->grad_norm().item<double>();
  if (config_.skip_nonfinite_grad) (*metrics)["skipped_updates"] = static_cast<double>(state_.skipped_updates);
  if (tolerant_.empty()) return;
  int64_t damaged = 0;  // this rank's
  for (const auto& [name, dataset] : tolerant_) damaged += dataset->report().damaged;
  (*metrics)["damaged_samples"] = static_cast<double>(damaged);
}

std::vector<std::pair<std::string, int64_t>> TorchRunner::MemoryParts() const {
  std::vector<torch::Tensor> parameters, gradients, states;
  for (const auto& [name, tensor] : StateOf(*model_)) parameters.push_back(tensor);
  for (const torch::Tensor& parameter : optimizer_->parameters()) gradients.push_back(parameter.grad());
  for (const auto& [name, tensor] : optimizer_->StateTensors()) states.push_back(tensor);
  std::vector<std::pair<std::string, int64_t>> parts = {{"parameters and buffers", BytesOf(parameters)},
                                                        {"gradients", BytesOf(gradients)},
                                                        {"optimizer", BytesOf(states)}};
  if (average_ == nullptr) return parts;
  TensorMap average;
  average_->Store(&average);
  std::vector<torch::Tensor> averaged;
  for (const auto& [name, tensor] : average) averaged.push_back(tensor);
  parts.emplace_back("average of the weights", BytesOf(averaged));
  return parts;
}

}  // namespace athanor

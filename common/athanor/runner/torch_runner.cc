#include "athanor/runner/torch_runner.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/optim/gradients.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {

absl::StatusOr<StepResult> TorchRunner::TrainStep() {
  StepResult result;
  double divisor = 0;
  bool last = false;
  window_weight_.reset();
  window_batches_ = 0;
  while (!last) RETURN_IF_ERROR(MicroBatch(&last, &divisor, &result));
  Telemetry::Clock clock;
  ASSIGN_OR_RETURN(result.updated, Update(divisor));
  result.times.optimizer = clock.Lap();
  result.epoch_ended = loader_->Advance(state_.step + (result.updated ? 1 : 0));
  if (first_update_ && options_.process_group != nullptr) {
    options_.process_group->SetTimeout(absl::Seconds(config_.comm.train_timeout_seconds));
  }
  first_update_ = false;
  return result;
}

absl::Status TorchRunner::MicroBatch(bool* last, double* divisor, StepResult* result) {
  Telemetry::Clock clock;
  absl::StatusOr<Batch> batch = loader_->Next();
  if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "training data"), FailureKind::kData);
  ++result->micro_batches;
  result->samples += batch->size;
  *divisor += static_cast<double>(batch->size) / static_cast<double>(loader_->batch_size());
  *last = result->micro_batches == config_.accum_steps || loader_->pass_ends();
  result->times.data += clock.Lap();
  return RunTorch("training step", [&] { ForwardBackward(*batch, *last, &result->times); });
}

void TorchRunner::ForwardBackward(const Batch& host_batch, bool last, StepTimes* times) {
  Telemetry::Clock clock;
  const Batch batch = ToDevice(host_batch);
  StepOutput output;
  {
    AutocastScope autocast(config_.precision, device_);
    output = CheckedForward(batch);
  }
  meters_.Add(output, batch.size);
  times->forward += clock.Lap();
  const bool first = window_batches_++ == 0;
  TORCH_CHECK(first || output.weight.defined() == window_weight_.defined(),
              "the forward function gave a weight for some micro-batches of a window and none for others");
  torch::Tensor loss = output.weight.defined() ? WeightedLoss(output) : output.loss;
  // All ranks' micro-batches are equally long (the sampler pads), so weights need no exchange.
  const double share = config_.accum_steps == 1 || output.weight.defined()
                           ? 1.0
                           : static_cast<double>(batch.size) / static_cast<double>(loader_->batch_size());
  const double weight = share * gradient_scale_.scale();
  if (weight != 1.0) loss = loss * weight;
  // Without preparation the reducer stays out of the way: gradients add up locally.
  if (last && reducer_ != nullptr) reducer_->PrepareForBackward(loss);
  loss.backward();
  if (last && reducer_ != nullptr) reducer_->FinishBackward();
  times->backward += clock.Lap();
}

torch::Tensor TorchRunner::WeightedLoss(const StepOutput& output) {
  TORCH_CHECK(output.weight.numel() == 1, "the forward function returned a weight of shape ", output.weight.sizes(),
              "; it must be one number");
  const torch::Tensor weight = output.weight.detach().reshape({}).to(torch::kFloat64);
  window_weight_ = window_weight_.defined() ? window_weight_ + weight : weight.clone();
  // The mean of nothing is NaN: it must not get into the window's sum.
  const torch::Tensor loss = output.loss.reshape({});
  return torch::where(weight > 0, loss, torch::zeros_like(loss)) * weight.to(loss.scalar_type());
}

absl::Status TorchRunner::SumWindowWeight() {
  if (!window_weight_.defined() || options_.process_group == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(options_.process_group->AllReduceSum(window_weight_));
  // The exchange has averaged the gradients over the ranks.
  window_weight_ /= options_.process_group->world_size();
  return absl::OkStatus();
}

// From sums over the window to its mean; takes the scale of float16 losses away.
void TorchRunner::ScaleWindow(double divisor) {
  const auto& parameters = optimizer_->parameters();
  if (window_weight_.defined()) {
    const torch::Tensor factor =
        torch::where(window_weight_ > 0, 1.0 / window_weight_, torch::zeros_like(window_weight_));
    ScaleGradients(parameters, factor / gradient_scale_.scale());
    return;
  }
  const double factor = (config_.accum_steps == 1 ? 1.0 : 1.0 / divisor) / gradient_scale_.scale();
  if (factor != 1.0) ScaleGradients(parameters, factor);
}

absl::StatusOr<bool> TorchRunner::Update(double divisor) {
  RETURN_IF_ERROR(SumWindowWeight());
  bool skip = false;
  const auto& parameters = optimizer_->parameters();
  RETURN_IF_ERROR(RunTorch("optimizer step", [&] {
    // Every rank holds the same mean gradients: all come to the same answer without asking each other.
    const bool check = config_.skip_nonfinite_grad || gradient_scale_.enabled();
    skip = check && NonFiniteGradients(parameters).item<float>() != 0;
    if (!skip) {
      ScaleWindow(divisor);
      if (config_.max_grad_value.has_value()) ClipGradValue(parameters, *config_.max_grad_value);
      if (config_.max_grad_norm.has_value()) grad_norm_ = ClipGradNorm(parameters, *config_.max_grad_norm);
      optimizer_->Step();
      if (average_ != nullptr) average_->Update();
    }
    DropGradients();
  }));
  gradient_scale_.Update(skip);
  if (!skip && scheduler_ != nullptr && scheduler_->interval() == SchedInterval::kStep)
    RETURN_IF_ERROR(scheduler_->Step());
  return !skip;
}

void TorchRunner::DropGradients() {
  if (reducer_ != nullptr) {
    reducer_->DropGradients();
    return;
  }
  for (torch::Tensor parameter : optimizer_->parameters()) parameter.mutable_grad().reset();
}

Batch TorchRunner::ToDevice(Batch batch) const {
  if (device_.is_cpu()) return batch;
  if (batch.input.defined()) batch.input = batch.input.to(device_, /*non_blocking=*/true);
  if (batch.target.defined()) batch.target = batch.target.to(device_, /*non_blocking=*/true);
  return batch;
}

StepOutput TorchRunner::CheckedForward(const Batch& batch) {
  StepOutput output = forward_(batch);
  TORCH_CHECK(output.loss.defined(), "the forward function returned no loss");
  TORCH_CHECK(output.loss.numel() == 1, "the forward function returned a loss of shape ", output.loss.sizes(),
              "; it must be one number");
  for (const auto& [name, value] : output.metrics) {
    TORCH_CHECK(value.defined() && value.numel() == 1, "metric '", name, "' must be one number");
  }
  return output;
}

absl::Status TorchRunner::EpochEnded(std::optional<double> metric) {
  if (scheduler_ != nullptr && scheduler_->interval() == SchedInterval::kEpoch) {
    if (scheduler_->needs_metric()) {
      // Without a number there is no improvement to see.
      RETURN_IF_ERROR(scheduler_->Step(metric.value_or(std::nan(""))));
    } else {
      RETURN_IF_ERROR(scheduler_->Step());
    }
  }
  loader_->NextRound(state_.step);
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, double>> TorchRunner::EvaluateSplit(const std::string& split) {
  StatefulDataLoader* loader = EvaluationLoader(split);
  if (loader == nullptr) {
    std::string known;
    for (const auto& [name, dataset] : datasets_) absl::StrAppend(&known, known.empty() ? "" : ", ", name);
    return absl::NotFoundError(absl::StrCat("evaluate: no split '", split, "'; the splits are: ", known));
  }
  if (reducer_ != nullptr) RETURN_IF_ERROR(reducer_->SyncBuffers());
  StepMeters meters;
  absl::Status done;
  {
    const ModelAverage::Swap swap(average_.get());
    model_->eval();
    done = ForwardAll(loader, &meters);
    model_->train();
  }
  if (options_.process_group != nullptr) {
    // A rank that failed must not leave the others waiting in the sum.
    ASSIGN_OR_RETURN(const Agreement agreement, options_.process_group->AllAgree({done.ok() ? 1 : 0}));
    if (agreement.min[0] == 0 && done.ok()) {
      done = WithFailureKind(absl::AbortedError(absl::StrCat("evaluate '", split, "': another rank failed")),
                             FailureKind::kUserCode);
    }
  }
  RETURN_IF_ERROR(done);
  return meters.Means(options_.process_group);
}

absl::Status TorchRunner::ForwardAll(StatefulDataLoader* loader, StepMeters* meters) {
  torch::NoGradGuard no_grad;
  loader->StartEpoch(0);
  while (true) {
    absl::StatusOr<Batch> batch = loader->Next();
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "evaluation data"), FailureKind::kData);
    RETURN_IF_ERROR(RunTorch("evaluation step", [&] {
      AutocastScope autocast(config_.precision, device_);
      // A batch of padding only is run for its metric names.
      meters->Add(CheckedForward(ToDevice(*batch)), batch->size);
    }));
    if (watchdog_ != nullptr) watchdog_->Feed("evaluation", state_.step);
  }
}

void TorchRunner::ReadStepMetrics(std::map<std::string, double>* metrics) {
  (*metrics)["lr"] = optimizer_->lr();
  if (grad_norm_.defined()) (*metrics)["grad_norm"] = grad_norm_.item<double>();
  if (config_.skip_nonfinite_grad) (*metrics)["skipped_updates"] = static_cast<double>(state_.skipped_updates);
}

}  // namespace athanor

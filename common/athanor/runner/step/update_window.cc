#include "athanor/runner/step/update_window.h"

#include <ATen/record_function.h>

#include <map>
#include <string>
#include <utility>

#include "athanor/base/status_macros.h"
#include "athanor/data/batch_device.h"
#include "athanor/parallel/process_group.h"
#include "athanor/runner/step/precision.h"
#include "athanor/runner/watch/telemetry.h"
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

UpdateWindow::UpdateWindow(RunContext* context, TrainedModel* trained, RunData* data, TorchSteps* steps,
                           RunMeasures* measures)
    : context_(context), trained_(trained), data_(data), steps_(steps), measures_(measures) {}

absl::Status UpdateWindow::Reseat(const Membership& members) {
  members_ = members;
  first_ = true;  // timeouts and agreements are of these ranks
  return absl::OkStatus();
}

void UpdateWindow::Begin() {
  ends_ = false;
  // A graph goes on adding to the tensor that it was captured with.
  if (trained_->graph != nullptr && weight_.defined()) {
    weight_.zero_();
  } else {
    weight_.reset();
  }
  loss_.reset();
  batches_ = 0;
}

absl::Status UpdateWindow::Run(bool measure_norm, StepResult* result) {
  Begin();
  divisor_ = 0;
  RETURN_IF_ERROR(trained_->strategy->Open());
  while (!ends_) {
    ASSIGN_OR_RETURN(const Batch batch, Next(result));
    RETURN_IF_ERROR(RunTorch("training step", [&] { ForwardBackward(batch, &result->times, true); }));
  }
  Telemetry::Clock clock;
  result->scale_search = trained_->scale.searching();
  ASSIGN_OR_RETURN(result->updated, Update(measure_norm));
  result->scale_search = result->scale_search && !result->updated;
  result->times.optimizer = clock.Lap();
  return absl::OkStatus();
}

void UpdateWindow::Settle() {
  if (first_ && members_.group() != nullptr)
    members_.group()->SetTimeout(absl::Seconds(context_->config.comm.train_timeout_seconds));
  first_ = false;
}

absl::StatusOr<Batch> UpdateWindow::Next(StepResult* result) {
  Telemetry::Clock clock;
  TrainSplits& train = data_->train();
  absl::StatusOr<Batch> batch;
  {
    RECORD_USER_SCOPE("data");
    batch = train.Next();
  }
  if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "training data"), FailureKind::kData);
  ++result->micro_batches;
  result->samples += batch->size;
  divisor_ += static_cast<double>(batch->size) / static_cast<double>(train.batch_size());
  ends_ = result->micro_batches == context_->config.accum_steps || train.pass_ends();
  result->times.data += clock.Lap();
  if (!context_->device.is_cpu() || trained_->input_type.has_value()) {
    RETURN_IF_ERROR(RunTorch("moving a batch", [&] {
      *batch = ToDevice(CastInputs(*std::move(batch), trained_->input_type), context_->device);
    }));
  }
  return batch;
}

void UpdateWindow::ForwardBackward(const Batch& batch, StepTimes* times, bool measure) {
  Telemetry::Clock clock;
  backward_seconds_ = 0;
  const int64_t before = batches_;
  const auto step = [&](const Batch& one) {
    StepOutput output = steps_->TrainStep(one);
    TORCH_CHECK(batches_ == before + 1, "TrainStep() must call Accumulate() once; it did so ", batches_ - before,
                " times");
    return output;
  };
  StepGraph* const graph = trained_->graph.get();
  const bool watch = graph != nullptr && first_;
  const auto places = watch ? BufferPlaces(*trained_->model) : std::map<std::string, const void*>();
  const StepOutput output = graph == nullptr ? step(batch) : graph->Run(batch, ends_, step);
  if (watch) {
    for (const auto& [name, place] : BufferPlaces(*trained_->model)) {
      TORCH_CHECK(places.contains(name) && places.at(name) == place, "compile.enable: the model assigns its buffer '",
                  name, "' anew in each step, which a graph cannot repeat; change it in place, or leave compile out");
    }
  }
  batches_ = before + 1;
  if (measure) measures_->Of(data_->train().split()).Add(output, batch.size);
  times->forward += clock.Lap() - backward_seconds_;
  times->backward += backward_seconds_;
}

void UpdateWindow::Accumulate(const StepOutput& output, const Batch& batch) {
  Telemetry::Clock clock;
  const bool first = batches_++ == 0;
  TORCH_CHECK(first || output.weight.defined() == weight_.defined(),
              "the forward function gave a weight for some micro-batches of a window and none for others");
  torch::Tensor loss = output.weight.defined() ? WeightedLoss(output) : output.loss;
  const bool whole = context_->config.accum_steps == 1 && !data_->uneven_ranks();
  const double share = whole || output.weight.defined()
                           ? 1.0
                           : static_cast<double>(batch.size) / static_cast<double>(data_->train().batch_size());
  const double weight = share * trained_->scale.scale();
  // Of its own type a float16 loss would overflow.
  if (weight != 1.0) loss = (loss.scalar_type() == torch::kHalf ? loss.to(torch::kFloat32) : loss) * weight;
  if (trained_->optimizer->needs_closure()) loss_ = loss_.defined() ? loss_ + loss.detach() : loss.detach().clone();
  RECORD_USER_SCOPE("backward");
  if (ends_ && members_.group() != nullptr) context_->progress.MarkExchange();
  trained_->strategy->PrepareForBackward(loss, /*last=*/ends_);
  steps_->Backward(loss);
  trained_->strategy->FinishBackward(/*last=*/ends_);
  backward_seconds_ += clock.Lap();
}

torch::Tensor UpdateWindow::WeightedLoss(const StepOutput& output) {
  TORCH_CHECK(output.weight.numel() == 1, "the forward function returned a weight of shape ", output.weight.sizes(),
              "; it must be one number");
  const torch::Tensor weight = output.weight.detach().reshape({}).to(torch::kFloat64);
  weight_ = weight_.defined() ? weight_.add_(weight) : weight.clone();
  // The mean of nothing is NaN: it must not get into the window's sum.
  const torch::Tensor loss = output.loss.reshape({});
  return torch::where(weight > 0, loss, torch::zeros_like(loss)) * weight.to(loss.scalar_type());
}

// Gradients are averaged over the ranks, so the total is, too. Micro-batches are equally long on all ranks (the sampler
// pads) unless a dataset leaves samples out: then, and with weights, it needs an exchange.
absl::Status UpdateWindow::AgreeOnTotal() {
  total_ = weight_;
  if (!members_.several()) return absl::OkStatus();
  ProcessGroup* const group = members_.group();
  if (first_) {
    ASSIGN_OR_RETURN(const Agreement weighted, group->AllAgree({weight_.defined() ? 1 : 0}));
    if (weighted.min[0] != weighted.max[0]) {
      return WithFailureKind(
          absl::InvalidArgumentError("the forward function gave weights on some ranks and none on others"),
          FailureKind::kUserCode);
    }
  }
  if (!total_.defined()) {
    if (!data_->uneven_ranks()) return absl::OkStatus();
    total_ = torch::full({}, divisor_, torch::dtype(torch::kFloat64).device(context_->device));
  }
  RETURN_IF_ERROR(group->AllReduceSum(total_));
  total_ /= group->world_size();
  return absl::OkStatus();
}

std::variant<double, torch::Tensor> UpdateWindow::Factor() const {
  const double scale = trained_->scale.scale();
  if (!total_.defined()) return (context_->config.accum_steps == 1 ? 1.0 : 1.0 / divisor_) / scale;
  const torch::Tensor factor = torch::where(total_ > 0, 1.0 / total_, torch::zeros_like(total_));
  return factor / scale;
}

absl::StatusOr<bool> UpdateWindow::Update(bool measure_norm) {
  RECORD_USER_SCOPE("optimizer");
  trained_->container->MeasureNorm(measure_norm);
  trained_->container->UseGraphs(trained_->GradientsStay());
  RETURN_IF_ERROR(AgreeOnTotal());
  absl::StatusOr<bool> updated = false;
  RETURN_IF_ERROR(RunTorch("optimizer step", [&] { updated = steps_->OptimizerStep(Factor()); }));
  if (!updated.ok()) return updated;
  trained_->scale.Update(/*overflow=*/!*updated);
  if (*updated) RETURN_IF_ERROR(trained_->strategy->PartsChanged());
  return updated;
}

}  // namespace athanor

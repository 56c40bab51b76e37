#include "athanor/runner/step/split_evaluator.h"

#include <utility>

#include "athanor/base/status_macros.h"
#include "athanor/data/batch_device.h"
#include "athanor/parallel/agree_on_status.h"
#include "athanor/runner/step/precision.h"
#include "athanor/torch/status.h"

namespace athanor {

SplitEvaluator::SplitEvaluator(RunContext* context, TrainedModel* trained, RunData* data, TorchSteps* steps,
                               MakeMetrics make_metrics)
    : context_(context), trained_(trained), data_(data), steps_(steps), make_metrics_(std::move(make_metrics)) {}

absl::StatusOr<std::map<std::string, double>> SplitEvaluator::Run(const std::string& split, int64_t max_batches) {
  StatefulDataLoader* loader = nullptr;
  StepMeters meters;
  RETURN_IF_ERROR(context_->Together("evaluate", [&]() -> absl::Status {
    absl::StatusOr<StatefulDataLoader*> found = data_->EvaluationLoader(split);
    if (!found.ok()) return Annotate(found.status(), "evaluate");
    loader = *found;
    ASSIGN_OR_RETURN(std::unique_ptr<MetricSet> metrics, make_metrics_());
    meters.SetMetrics(std::move(metrics));
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(trained_->strategy->SyncBuffers());
  const absl::Status done = trained_->Evaluate("evaluation", [&] { return ForwardAll(loader, &meters, max_batches); });
  trained_->model->train();
  if (context_->members.group() != nullptr) context_->progress.MarkExchange();
  if (!done.ok() && trained_->strategy->gathers()) {
    context_->LeaveGroup();  // the others wait in the middle of a forward pass
    return done;
  }
  RETURN_IF_ERROR(AgreeOnStatus(context_->members, done));
  return meters.Means(context_->members);
}

absl::Status SplitEvaluator::ForwardAll(StatefulDataLoader* loader, StepMeters* meters, int64_t max_batches) {
  torch::NoGradGuard no_grad;
  loader->StartEpoch(0);
  for (int64_t count = 0; max_batches < 0 || count < max_batches; ++count) {
    absl::StatusOr<Batch> batch = loader->Next();
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "evaluation data"), FailureKind::kData);
    RETURN_IF_ERROR(RunTorch("evaluation step", [&] {
      meters->Add(steps_->EvaluateStep(ToDevice(CastInputs(*batch, trained_->input_type), context_->device)),
                  batch->size);
    }));
    context_->progress.MarkEvaluated();
  }
  return absl::OkStatus();
}

}  // namespace athanor

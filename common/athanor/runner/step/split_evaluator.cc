#include "athanor/runner/step/split_evaluator.h"

#include <utility>

#include "athanor/base/status_macros.h"
#include "athanor/data/batch_device.h"
#include "athanor/parallel/agree_on_status.h"
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
  if (trained_->reducer != nullptr) RETURN_IF_ERROR(trained_->reducer->SyncBuffers());
  absl::Status done;
  const absl::Status thrown = RunTorch("evaluation", [&] {
    const ModelAverage::Swap swap(trained_->average.get());
    trained_->model->eval();
    done = ForwardAll(loader, &meters, max_batches);
  });
  trained_->model->train();
  if (context_->members.group() != nullptr) context_->progress.MarkExchange();
  RETURN_IF_ERROR(AgreeOnStatus(context_->members, thrown.ok() ? done : thrown));
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
      meters->Add(steps_->EvaluateStep(ToDevice(*batch, context_->device)), batch->size);
    }));
    context_->progress.MarkEvaluated();
  }
  return absl::OkStatus();
}

}  // namespace athanor

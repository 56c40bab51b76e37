#include "athanor/runner/step/inference.h"

#include "athanor/base/status_macros.h"
#include "athanor/data/batch_device.h"
#include "athanor/runner/step/precision.h"
#include "athanor/torch/status.h"

namespace athanor {

absl::Status Inference::Run(StatefulDataLoader* loader, const Sink& sink, int64_t max_batches) {
  const bool was_training = trained_->model->is_training();
  const absl::Status done = trained_->Evaluate("inference", [&] { return PredictAll(loader, sink, max_batches); });
  trained_->model->train(was_training);
  if (!done.ok() && trained_->strategy->gathers()) context_->LeaveGroup();
  return done;
}

absl::Status Inference::PredictAll(StatefulDataLoader* loader, const Sink& sink, int64_t max_batches) {
  torch::NoGradGuard no_grad;
  loader->StartEpoch(0);
  for (int64_t count = 0; max_batches < 0 || count < max_batches; ++count) {
    absl::StatusOr<Batch> batch = loader->Next();
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "inference data"), FailureKind::kData);
    const bool padding = batch->size == 0;  // this rank has fewer samples than others
    if (padding && !trained_->strategy->gathers()) continue;
    torch::Tensor prediction;
    RETURN_IF_ERROR(RunTorch("inference step", [&] {
      prediction =
          steps_->InferStep(ToDevice(CastInputs(*batch, trained_->input_type), context_->device)).to(torch::kCPU);
      TORCH_CHECK(prediction.dim() > 0, "predict returned a scalar; its first dimension must be the batch's");
    }));
    if (padding) continue;
    RETURN_IF_ERROR(sink(*batch, prediction.slice(0, 0, batch->size)));
    context_->progress.Advance("inference", 1);
  }
  return absl::OkStatus();
}

}  // namespace athanor

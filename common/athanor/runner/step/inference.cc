#include "athanor/runner/step/inference.h"

#include "athanor/base/status_macros.h"
#include "athanor/data/batch_device.h"
#include "athanor/torch/status.h"

namespace athanor {

absl::Status Inference::Run(StatefulDataLoader* loader, const Sink& sink, int64_t max_batches) {
  const bool was_training = trained_->model->is_training();
  absl::Status done;
  const absl::Status thrown = RunTorch("inference", [&] {
    const ModelAverage::Swap average(trained_->average.get());
    trained_->model->eval();
    done = PredictAll(loader, sink, max_batches);
  });
  trained_->model->train(was_training);
  return thrown.ok() ? done : thrown;
}

absl::Status Inference::PredictAll(StatefulDataLoader* loader, const Sink& sink, int64_t max_batches) {
  torch::NoGradGuard no_grad;
  loader->StartEpoch(0);
  for (int64_t count = 0; max_batches < 0 || count < max_batches; ++count) {
    absl::StatusOr<Batch> batch = loader->Next();
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "inference data"), FailureKind::kData);
    if (batch->size == 0) continue;  // this rank has fewer samples than others
    torch::Tensor prediction;
    RETURN_IF_ERROR(RunTorch("inference step", [&] {
      prediction = steps_->InferStep(ToDevice(*batch, context_->device)).to(torch::kCPU);
      TORCH_CHECK(prediction.dim() > 0, "predict returned a scalar; its first dimension must be the batch's");
    }));
    RETURN_IF_ERROR(sink(*batch, prediction.slice(0, 0, batch->size)));
    context_->progress.Advance("inference", 1);
  }
  return absl::OkStatus();
}

}  // namespace athanor

// Inference: predictions for the samples of a split.
#include <typeinfo>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/torch/status.h"

namespace athanor {

absl::Status TorchRunner::Infer(const std::string& split, const PredictionSink& sink, int64_t max_batches) {
  const absl::StatusOr<StatefulDataLoader*> loader = EvaluationLoader(split);
  if (!loader.ok()) return Annotate(loader.status(), "infer");
  if (predict_ == nullptr && typeid(*this) == typeid(TorchRunner))
    return absl::FailedPreconditionError("infer: the runner was made without `predict`");
  RETURN_IF_ERROR(Restore());
  const bool was_training = model_->is_training();
  ModelAverage::Swap average(average_.get());
  model_->eval();
  const absl::Status done = PredictAll(*loader, sink, max_batches);
  model_->train(was_training);
  return done;
}

absl::Status TorchRunner::PredictAll(StatefulDataLoader* loader, const PredictionSink& sink, int64_t max_batches) {
  torch::NoGradGuard no_grad;
  loader->StartEpoch(0);
  for (int64_t count = 0; max_batches < 0 || count < max_batches; ++count) {
    absl::StatusOr<Batch> batch = loader->Next();
    if (absl::IsOutOfRange(batch.status())) return absl::OkStatus();
    if (!batch.ok()) return WithFailureKind(Annotate(batch.status(), "inference data"), FailureKind::kData);
    if (batch->size == 0) continue;  // this rank has fewer samples than others
    torch::Tensor prediction;
    RETURN_IF_ERROR(RunTorch("inference step", [&] {
      prediction = InferStep(ToDevice(*batch)).to(torch::kCPU);
      TORCH_CHECK(prediction.dim() > 0, "predict returned a scalar; its first dimension must be the batch's");
    }));
    RETURN_IF_ERROR(sink(*batch, prediction.slice(0, 0, batch->size)));
    if (watchdog_ != nullptr) watchdog_->Feed("inference", state_.step);
  }
  return absl::OkStatus();
}

torch::Tensor TorchRunner::InferStep(const Batch& batch) {
  TORCH_CHECK(predict_ != nullptr, "the runner has no predict function, and the step is not overridden");
  AutocastScope autocast(config_.precision, device_);
  Fp8Scope fp8(fp8_);
  return predict_(batch);
}

absl::StatusOr<torch::Tensor> TorchRunner::Infer(const std::string& split, int64_t max_batches) {
  std::vector<torch::Tensor> parts;
  RETURN_IF_ERROR(Infer(
      split,
      [&parts](const Batch&, torch::Tensor prediction) {
        parts.push_back(std::move(prediction));
        return absl::OkStatus();
      },
      max_batches));
  if (parts.empty()) return torch::empty({0});
  torch::Tensor all = torch::cat(parts);
  return all.dim() > 1 && all.size(-1) == 1 ? all.squeeze(-1) : all;
}

}  // namespace athanor

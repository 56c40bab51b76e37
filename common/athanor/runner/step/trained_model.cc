#include "athanor/runner/step/trained_model.h"

#include "athanor/torch/status.h"

namespace athanor {

void TrainedModel::DropGradients() {
  GradientsStay() ? optimizer->ZeroGrad() : strategy->DropGradients();
}

absl::Status TrainedModel::Evaluate(absl::string_view what, const std::function<absl::Status()>& body) {
  absl::Status done;
  const absl::Status thrown = RunTorch(what, [&] {
    const ModelAverage::Swap swap(average.get());
    model->eval();
    if (average != nullptr) done = strategy->PartsChanged();
    if (done.ok()) done = strategy->Open();
    if (!done.ok()) return;
    const absl::Status failed = RunTorch(what, [&] { done = body(); });
    if (!failed.ok()) done = failed;
    done.Update(strategy->Close());
  });
  if (!thrown.ok()) return thrown;
  if (average != nullptr) done.Update(strategy->PartsChanged());
  return done;
}

}  // namespace athanor

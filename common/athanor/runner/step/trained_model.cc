#include "athanor/runner/step/trained_model.h"

namespace athanor {

void TrainedModel::DropGradients() {
  if (GradientsStay()) {
    optimizer->ZeroGrad();
    return;
  }
  if (reducer != nullptr) {
    reducer->DropGradients();
    return;
  }
  for (torch::Tensor parameter : optimizer->parameters()) parameter.mutable_grad().reset();
}

}  // namespace athanor

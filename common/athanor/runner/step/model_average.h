// The exponential moving average of a model's parameters (EMA): average = decay * average + (1 - decay) * parameter
// after each update. A parameter with several names (tied weights) has one average, stored under each of them.
//
//   ModelAverage average(model, 0.999);
//   average.Update();
//   { ModelAverage::Swap swap(&average);  ... evaluate with the average ... }
//
// Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/parallel/strategies/data_strategy.h"

namespace athanor {

class ModelAverage {
 public:
  // Starts as a copy. `owned`: what this rank has of the parameters; without it all of them.
  ModelAverage(const torch::nn::Module& model, double decay);
  ModelAverage(const torch::nn::Module& model, std::vector<OwnedParameter> owned, double decay);
  void Update();
  void CopyFromModel();
  void Store(TrainingState* out) const;           // "ema.<name>", aliases
  absl::Status Load(const TrainingState& state);  // DATA_LOSS or INVALID_ARGUMENT names the tensor
  const std::vector<torch::Tensor>& averages() const { return averages_; }

  // While it lives the model holds the average.
  class Swap {
   public:
    explicit Swap(ModelAverage* average);  // null: nothing
    ~Swap();
    Swap(const Swap&) = delete;

   private:
    ModelAverage* average_;
    std::vector<torch::Tensor> kept_;
  };

 private:
  double decay_;
  std::vector<OwnedParameter> owned_;
  std::vector<std::vector<std::string>> names_;  // by parameter
  std::vector<torch::Tensor> parameters_;
  std::vector<torch::Tensor> averages_;
};

}  // namespace athanor

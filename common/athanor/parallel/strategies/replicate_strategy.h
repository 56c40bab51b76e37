// Every rank has all parameters and all optimizer state; gradients are averaged (gradient_reducer.h). With one rank
// there is nobody to exchange with.
//
//   ReplicateStrategy strategy(model.get(), {.bucket_bytes = 25 << 20});
//   RETURN_IF_ERROR(strategy.Reseat(members));
#pragma once

#include <memory>
#include <vector>

#include "athanor/parallel/gradient_reducer.h"
#include "athanor/parallel/strategies/data_strategy.h"

namespace athanor {

class ReplicateStrategy final : public DataStrategy {
 public:
  // `module` outlives this object.
  ReplicateStrategy(const torch::nn::Module* module, const GradientReducerOptions& options);

  absl::Status Reseat(const Membership& members) override;
  void PrepareForBackward(const torch::Tensor& loss, bool last) override;
  void FinishBackward(bool last) override;
  void DropGradients() override;
  bool settled() const override { return reducer_ == nullptr || reducer_->settled(); }
  absl::Status SyncBuffers() override;
  std::vector<torch::Tensor> Replicated() const override;
  absl::Status Gathered(const std::function<absl::Status(const std::string&, const torch::Tensor&)>& take) override;

 private:
  const torch::nn::Module* const module_;
  const GradientReducerOptions options_;
  std::unique_ptr<GradientReducer> reducer_;  // null: one rank
};

}  // namespace athanor

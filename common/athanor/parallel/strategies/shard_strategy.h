// Divides the model over the `shard` axis: parameters, gradients and optimizer state (ZeRO-3, FSDP), or what of it the
// level says; over the `replicate` axis the parts are replicated (hybrid).
//
//   ShardStrategy strategy(model.get(), {.level = ShardLevel::kParameters, .units = {"blocks.*"}});
//   RETURN_IF_ERROR(strategy.Reseat(members));
//
// Parameters that `ignored` names stay whole on every rank and are trained as with ReplicateStrategy. Ranks are those
// of the start: state that has moved to other ranks is restored from a checkpoint by a new object.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "athanor/parallel/strategies/data_strategy.h"
#include "athanor/parallel/strategies/sharded_parameters.h"

namespace athanor {

enum class ShardLevel {
  kOptimizer,   // optimizer state; gradients whole until the end of a window (ZeRO-1)
  kGradients,   // and gradients (ZeRO-2)
  kParameters,  // and parameters (ZeRO-3)
};

struct ShardStrategyOptions {
  ShardLevel level = ShardLevel::kParameters;
  std::vector<std::string> units;    // as UnitsByName(); empty: children of lists, joined up to `unit_bytes`
  std::vector<std::string> ignored;  // names, or what they begin with: "tokens", "blocks.*.norm"
  int64_t unit_bytes = 1 << 20;
  ShardingOptions sharding;  // `parameters_stay` and `replicas` are set by the level and the ranks
};

// Neighbours among the children of lists in one unit until it has so many bytes. "root" stays by itself.
std::vector<ShardUnit> JoinedUnits(std::vector<ShardUnit> units, int64_t bytes);

class ShardStrategy final : public DataStrategy {
 public:
  // `module` outlives this object.
  ShardStrategy(const torch::nn::Module* module, ShardStrategyOptions options);

  // FAILED_PRECONDITION for other ranks than those of the start.
  absl::Status Reseat(const Membership& members) override;
  bool divides() const override { return true; }
  bool gathers() const override { return options_.level == ShardLevel::kParameters; }
  int replicas() const override { return static_cast<int>(members_.topology().degree("replicate")); }
  int replica() const override;

  absl::Status Open() override { return sharded_->Begin(); }
  absl::Status Close() override { return sharded_->Release(); }
  void PrepareForBackward(const torch::Tensor& loss, bool last) override;
  void FinishBackward(bool last) override;
  void DropGradients() override;
  absl::Status PartsChanged() override { return sharded_->Refresh(); }
  absl::Status SyncBuffers() override;
  void SumOverParts(torch::Tensor value) override;
  std::vector<torch::Tensor> Replicated() const override;
  absl::Status Gathered(const std::function<absl::Status(const std::string&, const torch::Tensor&)>& take) override;

  const ShardedParameters& sharded() const { return *sharded_; }

 private:
  absl::Status Divide();

  const torch::nn::Module* const module_;
  const ShardStrategyOptions options_;
  Membership members_;
  ProcessGroup *shards_ = nullptr, *replicas_ = nullptr;
  std::unique_ptr<ShardedParameters> sharded_;
  std::vector<torch::Tensor> ignored_;
};

}  // namespace athanor

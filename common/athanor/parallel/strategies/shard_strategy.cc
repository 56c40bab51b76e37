#include "athanor/parallel/strategies/shard_strategy.h"

#include <algorithm>
#include <map>
#include <utility>

#include <c10/util/Exception.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/model_sync.h"
#include "athanor/parallel/process_group.h"
#include "athanor/parallel/tensor_fingerprint.h"
#include "athanor/torch/module_tensors.h"

namespace athanor {
namespace {

constexpr char kRoot[] = "root";

void ThrowUnlessOk(const absl::Status& status) {
  if (status.ok()) return;
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status))
    TORCH_CHECK_WITH(DistBackendError, false, std::string(status.message()));
  TORCH_CHECK(false, std::string(status.message()));
}

int64_t BytesOfUnit(const ShardUnit& unit) {
  int64_t bytes = 0;
  for (const NamedParameter& one : unit.parameters) bytes += static_cast<int64_t>(one.tensor.nbytes());
  return bytes;
}

}  // namespace

std::vector<ShardUnit> JoinedUnits(std::vector<ShardUnit> units, int64_t bytes) {
  std::vector<ShardUnit> joined;
  size_t last = units.size();  // place in `joined` of the last one that is not the root
  for (ShardUnit& unit : units) {
    const bool root = unit.name == kRoot;
    if (!root && last < joined.size() && BytesOfUnit(joined[last]) < bytes) {
      absl::StrAppend(&joined[last].name, "+", unit.name);
      for (NamedParameter& one : unit.parameters) joined[last].parameters.push_back(std::move(one));
      continue;
    }
    if (!root) last = joined.size();
    joined.push_back(std::move(unit));
  }
  return joined;
}

ShardStrategy::ShardStrategy(const torch::nn::Module* module, ShardStrategyOptions options)
    : module_(module), options_(std::move(options)) {}

int ShardStrategy::replica() const {
  return static_cast<int>(members_.topology().DomainRank("replicate", members_.rank()));
}

absl::Status ShardStrategy::Reseat(const Membership& members) {
  if (sharded_ != nullptr) {
    if (members.group() == members_.group()) return absl::OkStatus();
    return absl::FailedPreconditionError("sharding: the ranks have changed; restore the state from a checkpoint");
  }
  members_ = members;
  ASSIGN_OR_RETURN(shards_, members.GroupOf("shard"));
  ASSIGN_OR_RETURN(replicas_, members.GroupOf("replicate"));
  if (shards_ == nullptr)
    return absl::InvalidArgumentError("sharding: found 1 rank on the axis `shard`; allowed: 2 or more");
  RETURN_IF_ERROR(CompareModels(*module_, members));
  std::vector<torch::Tensor> parameters;
  for (const auto& [name, parameter] : DistinctParameters(*module_)) parameters.push_back(parameter);
  RETURN_IF_ERROR(BroadcastFromMain(parameters, members));
  RETURN_IF_ERROR(SyncBuffers());
  return Divide();
}

absl::Status ShardStrategy::Divide() {
  std::vector<NamedParameter> all, divided;
  for (const auto& [name, parameter] : DistinctParameters(*module_)) all.push_back({name, parameter});
  // A unit of a pattern is what the pattern stands for; the rest is the root.
  for (const ShardUnit& unit : UnitsByName(all, options_.ignored)) {
    const bool ignored = !options_.ignored.empty() && unit.name != kRoot;
    for (const NamedParameter& one : unit.parameters) {
      if (!ignored) divided.push_back(one);
      if (!ignored) continue;
      ignored_.push_back(one.tensor);
      owned_.push_back(
          {.name = one.name, .value = one.tensor, .shape = one.tensor.sizes().vec(), .parameter = one.tensor});
    }
  }
  if (std::none_of(divided.begin(), divided.end(), [](const auto& one) { return one.tensor.requires_grad(); }))
    return absl::InvalidArgumentError("sharding: no parameter that is not ignored needs a gradient");
  std::vector<ShardUnit> units = UnitsByName(divided, options_.units);
  if (options_.units.empty()) units = JoinedUnits(std::move(units), options_.unit_bytes);
  ShardingOptions sharding = options_.sharding;
  sharding.parameters_stay = options_.level != ShardLevel::kParameters;
  sharding.sum_once = sharding.sum_once || options_.level == ShardLevel::kOptimizer;
  sharding.replicas = replicas_;
  ASSIGN_OR_RETURN(sharded_, ShardedParameters::Create(std::move(units), shards_, sharding));
  for (ShardedParameters::Slice& slice : sharded_->Slices()) {
    owned_.push_back({.name = std::move(slice.name),
                      .value = std::move(slice.value),
                      .shape = std::move(slice.shape),
                      .divided = true,
                      .begin = slice.begin,
                      .parameter = std::move(slice.parameter)});
  }
  return absl::OkStatus();
}

void ShardStrategy::PrepareForBackward(const torch::Tensor&, bool last) {
  sharded_->Pass(last);
}

void ShardStrategy::FinishBackward(bool last) {
  if (!last) return;
  const double share = 1.0 / members_.world_size();
  ThrowUnlessOk(sharded_->FinishBackward(share));
  for (torch::Tensor& parameter : ignored_) {
    if (!parameter.grad().defined()) continue;
    torch::Tensor gradient = parameter.grad().contiguous();
    ThrowUnlessOk(members_.group()->AllReduceSum(gradient));
    parameter.mutable_grad() = gradient.mul_(share);
  }
}

void ShardStrategy::DropGradients() {
  sharded_->DropGradients();
  for (torch::Tensor& parameter : ignored_) parameter.mutable_grad().reset();
}

absl::Status ShardStrategy::SyncBuffers() {
  std::vector<torch::Tensor> buffers;
  for (const auto& [name, buffer] : DistinctBuffers(*module_)) buffers.push_back(buffer);
  return BroadcastFromMain(buffers, members_);
}

void ShardStrategy::SumOverParts(torch::Tensor value) {
  ThrowUnlessOk(shards_->AllReduceSum(std::move(value)));
}

std::vector<torch::Tensor> ShardStrategy::Replicated() const {
  std::vector<torch::Tensor> tensors = ignored_;
  if (replicas_ == nullptr) return tensors;
  std::vector<torch::Tensor> parts;
  for (const OwnedParameter& one : owned_) {
    if (one.divided && one.value.numel() > 0) parts.push_back(one.value);
  }
  const absl::StatusOr<Agreement> agreement = replicas_->AllAgree({FingerprintOf(parts)});
  ThrowUnlessOk(agreement.status());
  // The parts of other replicas than these are others: what all ranks share is whether theirs are alike.
  const bool alike = agreement->min[0] == agreement->max[0];
  tensors.push_back(torch::tensor(alike ? int64_t{0} : members_.rank() + int64_t{1}));
  return tensors;
}

absl::Status ShardStrategy::Gathered(
    const std::function<absl::Status(const std::string&, const torch::Tensor&)>& take) {
  for (const OwnedParameter& one : owned_) {
    if (!one.divided) RETURN_IF_ERROR(take(one.name, one.value.detach()));
  }
  return sharded_->Gathered(take);
}

}  // namespace athanor

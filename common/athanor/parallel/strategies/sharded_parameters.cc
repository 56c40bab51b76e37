#include "athanor/parallel/strategies/sharded_parameters.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <torch/csrc/autograd/variable.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/group_backend.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// "blocks.*" and "blocks.3.mlp.weight" give "blocks.3"; empty when the name does not match.
std::string UnitOf(const std::string& name, const std::string& pattern) {
  const std::vector<std::string> wanted = absl::StrSplit(pattern, '.'), parts = absl::StrSplit(name, '.');
  if (parts.size() < wanted.size()) return "";
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] != "*" && wanted[i] != parts[i]) return "";
  }
  return absl::StrJoin(parts.begin(), parts.begin() + static_cast<int64_t>(wanted.size()), ".");
}

// The name up to its first number: that of a child of a list.
std::string ChildOfList(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    int64_t number = 0;
    if (absl::SimpleAtoi(parts[i], &number)) {
      return absl::StrJoin(parts.begin(), parts.begin() + static_cast<int64_t>(i) + 1, ".");
    }
  }
  return "";
}

}  // namespace

std::vector<ShardUnit> UnitsByName(const std::vector<NamedParameter>& parameters,
                                   const std::vector<std::string>& patterns) {
  std::vector<ShardUnit> units;
  std::map<std::string, size_t> index;
  for (const NamedParameter& parameter : parameters) {
    std::string unit = patterns.empty() ? ChildOfList(parameter.name) : "";
    for (const std::string& pattern : patterns) {
      if (unit.empty()) unit = UnitOf(parameter.name, pattern);
    }
    if (unit.empty()) unit = "root";
    const auto [found, fresh] = index.try_emplace(unit, units.size());
    if (fresh) units.push_back({unit, {}});
    units[found->second].parameters.push_back(parameter);
  }
  return units;
}

// A watch of its own, so that a use says which unit it is of.
struct ShardedParameters::Unit : ParameterWatch {
  Unit(ShardedParameters* all, size_t number, const ShardUnit& from)
      : owner(all),
        index(number),
        flat(from.name, from.parameters,
             {.rank = all->group_->rank(),
              .ranks = all->group_->world_size(),
              .stays = all->options_.parameters_stay,
              .parameter_type = all->options_.parameter_type,
              .shard_device = all->options_.shard_device},
             this),
        ready(from.parameters.size(), false),
        arrived(from.parameters.size(), false),
        got(from.parameters.size(), false) {}

  void OnRead(const char* op) override { owner->Use(*this, op); }
  void OnWrite(const char* op) override {
    TORCH_CHECK(false, op, " writes to a sharded parameter of unit '", flat.name(),
                "': the change would be lost when it is freed. Change the slices (ShardedParameters::Slices)");
  }

  ShardedParameters* const owner;
  const size_t index;
  FlatUnit flat;
  WorkPtr gather;               // under way
  torch::Tensor flat_gradient;  // of the backward under way
  torch::Tensor sent, reduced;  // of the reduction under way: what goes in and what comes out
  WorkPtr reduction;
  std::vector<bool> ready;    // which parameters have a gradient in flat_gradient
  std::vector<bool> arrived;  // of those: in this pass
  int64_t arrived_count = 0;
  std::vector<bool> got;                                 // which have one since DropGradients()
  torch::Tensor gradient;                                // like the shard
  std::vector<std::pair<size_t, torch::Tensor>> slices;  // (slot, view of the shard)
};

struct ShardedParameters::GradientHook : torch::autograd::PostAccumulateGradHook {
  GradientHook(Unit* of, size_t number) : unit(of), slot(number) {}
  void operator()(const torch::Tensor& parameter) override { unit->owner->TakeGradient(*unit, slot, parameter); }
  Unit* const unit;
  const size_t slot;
};

ShardedParameters::ShardedParameters(ProcessGroup* group, const ShardingOptions& options)
    : group_(group), options_(options) {}

ShardedParameters::~ShardedParameters() {
  RunTorch("closing sharded parameters", [this] {
    for (const auto& unit : units_) {
      for (const FlatUnit::Slot& slot : unit->flat.slots()) {
        if (slot.trainable) torch::autograd::impl::set_post_acc_grad_hooks(slot.parameter, nullptr);
      }
      if (unit->gather != nullptr) unit->gather->wait();
      if (unit->reduction != nullptr) unit->reduction->wait();
    }
  }).IgnoreError();
}

absl::StatusOr<std::unique_ptr<ShardedParameters>> ShardedParameters::Create(std::vector<ShardUnit> units,
                                                                             ProcessGroup* group,
                                                                             const ShardingOptions& options) {
  std::unique_ptr<ShardedParameters> sharded(new ShardedParameters(group, options));
  std::set<const c10::TensorImpl*> seen;  // parameters with several names count once
  std::vector<ShardUnit> alike;           // each of one dtype
  for (const ShardUnit& unit : units) {
    std::map<torch::ScalarType, ShardUnit> by_type;
    for (const NamedParameter& parameter : unit.parameters) {
      if (!seen.insert(parameter.tensor.unsafeGetTensorImpl()).second) continue;
      if (parameter.tensor.device() != unit.parameters.front().tensor.device()) {
        return absl::InvalidArgumentError(
            absl::StrCat("unit '", unit.name, "': '", parameter.name, "' is on ", parameter.tensor.device().str(),
                         ", '", unit.parameters.front().name, "' on ", unit.parameters.front().tensor.device().str()));
      }
      ShardUnit& part = by_type[parameter.tensor.scalar_type()];
      part.name = unit.name;
      part.parameters.push_back(parameter);
    }
    for (auto& [type, part] : by_type) alike.push_back(std::move(part));
  }
  if (alike.empty()) return absl::InvalidArgumentError("sharding: there are no parameters");
  absl::Status made = RunTorch("sharding the parameters", [&] {
    for (const ShardUnit& unit : alike) {
      Unit& one = *sharded->units_.emplace_back(std::make_unique<Unit>(sharded.get(), sharded->units_.size(), unit));
      for (size_t i = 0; i < one.flat.slots().size(); ++i) {
        const FlatUnit::Slot& slot = one.flat.slots()[i];
        const FlatUnit::Overlap overlap = one.flat.OverlapOf(slot);
        torch::Tensor view = one.flat.shard().narrow(0, overlap.in_shard, overlap.elements);
        one.slices.emplace_back(i, view.detach().requires_grad_(slot.trainable));
        if (!slot.trainable) continue;
        torch::autograd::impl::set_post_acc_grad_hooks(slot.parameter, std::make_unique<GradientHook>(&one, i));
      }
    }
  });
  RETURN_IF_ERROR(made);
  return sharded;
}

std::vector<ShardedParameters::Slice> ShardedParameters::Slices() const {
  std::vector<Slice> slices;
  for (const auto& unit : units_) {
    for (const auto& [number, view] : unit->slices) {
      const FlatUnit::Slot& slot = unit->flat.slots()[number];
      slices.push_back({slot.name, view, unit->flat.OverlapOf(slot).in_parameter, slot.shape, slot.parameter});
    }
  }
  return slices;
}

absl::Status ShardedParameters::Begin() {
  if (in_use_) return absl::FailedPreconditionError("sharded parameters: Begin() twice, without an end between");
  DropGradients();
  in_use_ = last_pass_ = true;
  counts_ = {};
  if (!options_.parameters_stay) return absl::OkStatus();
  return RunTorch("gathering parameters", [&] {
    for (const auto& unit : units_) FinishGather(*unit);
  });
}

void ShardedParameters::Pass(bool last) {
  last_pass_ = last;
  for (const auto& unit : units_) {
    std::fill(unit->arrived.begin(), unit->arrived.end(), false);
    unit->arrived_count = 0;
  }
}

absl::Status ShardedParameters::Refresh() {
  if (!options_.parameters_stay) return absl::OkStatus();
  return RunTorch("gathering parameters", [&] {
    for (const auto& unit : units_) {
      FinishGather(*unit);
      StartGather(*unit);
    }
  });
}

void ShardedParameters::Use(Unit& unit, const char* op) {
  if (&unit == current_) return;
  TORCH_CHECK(in_use_, op, " uses a sharded parameter of unit '", unit.flat.name(),
              "' outside of a step: it is there between ShardedParameters::Begin() and FinishBackward() or Release()");
  if (current_ != nullptr && options_.reshard_after_forward) Free(*current_);
  current_ = &unit;
  order_.push_back(unit.index);
  if (!unit.flat.present()) StartGather(unit);
  FinishGather(unit);
  const size_t next = order_.size();
  const bool as_before = next < last_order_.size() && last_order_[next - 1] == unit.index;
  if (!options_.prefetch || !as_before) return;
  Unit& ahead = *units_[last_order_[next]];
  if (ahead.flat.present()) return;
  StartGather(ahead);
  ++counts_.prefetched;
}

void ShardedParameters::StartGather(Unit& unit) {
  const torch::NoGradGuard no_gradient;
  if (!unit.flat.present()) unit.flat.Allocate();
  torch::Tensor full = unit.flat.full(), shard = unit.flat.Sent();
  unit.gather = BackendOf(*group_)._allgather_base(full, shard);
  ++counts_.gathers;
}

void ShardedParameters::FinishGather(Unit& unit) {
  if (unit.gather != nullptr) std::exchange(unit.gather, nullptr)->wait();
}

void ShardedParameters::Free(Unit& unit) {
  FinishGather(unit);
  unit.flat.Free();
}

void ShardedParameters::TakeGradient(Unit& unit, size_t slot, const torch::Tensor& parameter) {
  const torch::NoGradGuard no_gradient;
  torch::Tensor gradient = parameter.grad();
  const_cast<torch::Tensor&>(parameter).mutable_grad().reset();
  if (gradient.is_sparse()) gradient = gradient.to_dense();
  if (!unit.flat_gradient.defined()) {
    const torch::TensorOptions options = unit.flat.full().options();
    unit.flat_gradient =
        torch::empty({unit.flat.flat_elements()}, options.dtype(options_.reduce_type.value_or(gradient.scalar_type())));
  }
  const FlatUnit::Slot& place = unit.flat.slots()[slot];
  torch::Tensor to = unit.flat_gradient.narrow(0, place.offset, place.elements).view(place.shape);
  // Added: of an earlier pass, or a second part, of a block that was run again.
  unit.ready[slot] ? to.add_(gradient) : to.copy_(gradient);
  unit.ready[slot] = true;
  if (unit.arrived[slot]) return;
  unit.arrived[slot] = true;
  if (++unit.arrived_count < unit.flat.trainable()) return;
  if (last_pass_ || !options_.sum_once) StartReduction(unit);
  if (current_ == &unit) current_ = nullptr;
  Free(unit);
}

// What no gradient was copied to: pads, frozen parameters and those that were not used.
void ShardedParameters::ClearUnused(Unit& unit) {
  int64_t end = 0;
  const auto clear_up_to = [&](int64_t begin) {
    if (begin > end) unit.flat_gradient.narrow(0, end, begin - end).zero_();
  };
  for (size_t i = 0; i < unit.ready.size(); ++i) {
    const FlatUnit::Slot& slot = unit.flat.slots()[i];
    if (!unit.ready[i]) continue;
    clear_up_to(slot.offset);
    end = slot.offset + slot.elements;
  }
  clear_up_to(unit.flat.flat_elements());
}

void ShardedParameters::StartReduction(Unit& unit) {
  FinishReduction();
  ClearUnused(unit);
  unit.reduced = torch::empty({unit.flat.shard_elements()}, unit.flat_gradient.options());
  unit.sent = std::exchange(unit.flat_gradient, {});  // the next backward must not write into it
  unit.reduction = BackendOf(*group_)._reduce_scatter_base(unit.reduced, unit.sent);
  reducing_ = &unit;
  for (size_t i = 0; i < unit.ready.size(); ++i) unit.got[i] = unit.got[i] || unit.ready[i];
  std::fill(unit.ready.begin(), unit.ready.end(), false);
}

void ShardedParameters::FinishReduction() {
  if (reducing_ == nullptr) return;
  Unit& unit = *std::exchange(reducing_, nullptr);
  std::exchange(unit.reduction, nullptr)->wait();
  unit.sent.reset();
  const torch::Tensor sum = std::exchange(unit.reduced, {}).to(unit.flat.shard().options());
  if (unit.gradient.defined()) {
    unit.gradient.add_(sum);
  } else {
    unit.gradient = sum;
  }
}

void ShardedParameters::SumOverReplicas() {
  if (options_.replicas == nullptr) return;
  std::vector<WorkPtr> sums;
  for (const auto& unit : units_) {
    if (!unit->gradient.defined()) continue;
    std::vector<torch::Tensor> tensors = {unit->gradient};
    sums.push_back(BackendOf(*options_.replicas).allreduce(tensors));
  }
  for (const WorkPtr& sum : sums) sum->wait();
}

void ShardedParameters::EndUse() {
  for (const auto& unit : units_) Free(*unit);
  current_ = nullptr;
  in_use_ = false;
  last_order_ = std::exchange(order_, {});
}

absl::Status ShardedParameters::FinishBackward(double scale) {
  return RunTorch("the gradients of sharded parameters", [&] {
    const torch::NoGradGuard no_gradient;
    for (const auto& unit : units_) {
      // Those of which not every parameter was used in the last pass.
      if (std::find(unit->ready.begin(), unit->ready.end(), true) != unit->ready.end()) StartReduction(*unit);
    }
    FinishReduction();
    EndUse();
    SumOverReplicas();
    for (const auto& unit : units_) {
      if (!unit->gradient.defined()) continue;
      for (auto& [slot, view] : unit->slices) {
        if (!unit->got[slot] || view.grad().defined()) continue;
        const FlatUnit::Overlap overlap = unit->flat.OverlapOf(unit->flat.slots()[slot]);
        view.mutable_grad() = unit->gradient.narrow(0, overlap.in_shard, overlap.elements);
      }
      unit->gradient.mul_(scale);
    }
  });
}

absl::Status ShardedParameters::Release() {
  return RunTorch("freeing sharded parameters", [&] {
    const torch::NoGradGuard no_gradient;
    FinishReduction();
    for (const auto& unit : units_) {
      unit->flat_gradient.reset();
      std::fill(unit->ready.begin(), unit->ready.end(), false);
    }
    EndUse();
  });
}

void ShardedParameters::DropGradients() {
  for (const auto& unit : units_) {
    for (auto& [slot, view] : unit->slices) view.mutable_grad().reset();
    unit->gradient.reset();
    std::fill(unit->got.begin(), unit->got.end(), false);
  }
}

absl::Status ShardedParameters::Gathered(
    const std::function<absl::Status(const std::string&, const torch::Tensor&)>& take) {
  for (const auto& unit : units_) {
    RETURN_IF_ERROR(RunTorch("gathering parameters", [&] {
      if (!unit->flat.present()) StartGather(*unit);
      FinishGather(*unit);
    }));
    absl::Status taken;
    for (const FlatUnit::Slot& slot : unit->flat.slots()) {
      if (!taken.ok()) break;
      const torch::Tensor whole = unit->flat.full().narrow(0, slot.offset, slot.elements).view(slot.shape);
      taken = take(slot.name, whole);
    }
    // Every rank gathers as often, whatever one of them makes of it.
    if (unit.get() != current_) RETURN_IF_ERROR(RunTorch("freeing parameters", [&] { Free(*unit); }));
    RETURN_IF_ERROR(taken);
  }
  return absl::OkStatus();
}

}  // namespace athanor

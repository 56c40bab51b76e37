#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/optim/optimizer.h"

namespace athanor {
namespace {

constexpr absl::string_view kPrefix = "optim.";

std::string Shape(const torch::Tensor& tensor) {
  return absl::StrCat(c10::toString(tensor.scalar_type()), " [", absl::StrJoin(tensor.sizes(), ", "), "]");
}

}  // namespace

TensorMap Optimizer::StateTensors() const {
  TensorMap tensors;
  for (const Group& group : groups_) {
    for (const Parameter& parameter : group.parameters) {
      for (const auto& [slot, tensor] : parameter.slots)
        tensors[absl::StrCat(kPrefix, parameter.name, ".", slot)] = tensor;
    }
  }
  return tensors;
}

nlohmann::json Optimizer::StateScalars() const {
  // Nearly always all parameters have had the same updates: one number, and the exceptions by name.
  const int64_t common = groups_.front().parameters.front().steps;
  nlohmann::json others = nlohmann::json::object(), products = nlohmann::json::object(),
                 groups = nlohmann::json::array();
  for (const Group& group : groups_) {
    groups.push_back({{"lr", group.options.lr}});
    for (const Parameter& parameter : group.parameters) {
      if (parameter.steps != common) others[parameter.name] = parameter.steps;
      if (parameter.mu_product != 1) products[parameter.name] = parameter.mu_product;
    }
  }
  nlohmann::json scalars = {{"type", type_}, {"steps", {{"common", common}, {"others", others}}}, {"groups", groups}};
  if (!products.empty()) scalars["mu_products"] = products;
  return scalars;
}

absl::Status Optimizer::PlanLoad(const TensorMap& tensors, const nlohmann::json& scalars,
                                 std::vector<Parameter>* plan) const {
  if (const std::string type = scalars.at("type").get<std::string>(); type != type_) {
    return absl::InvalidArgumentError(absl::StrCat("optimizer state: found type ", type, "; allowed: ", type_));
  }
  const nlohmann::json& steps = scalars.at("steps");
  const nlohmann::json products = scalars.value("mu_products", nlohmann::json::object());
  const std::vector<std::string> slots = SlotNames();
  std::map<std::string, Parameter*> by_name;
  plan->clear();
  plan->reserve(parameters_.size());
  for (const Group& group : groups_) {
    for (const Parameter& parameter : group.parameters) {
      Parameter fresh{.name = parameter.name, .tensor = parameter.tensor, .part = parameter.part};
      fresh.steps = steps.at("others").value(parameter.name, steps.at("common").get<int64_t>());
      fresh.mu_product = products.value(parameter.name, 1.0);
      plan->push_back(std::move(fresh));
      by_name[parameter.name] = &plan->back();
    }
  }
  for (const auto& [key, tensor] : tensors) {
    if (!absl::StartsWith(key, kPrefix)) continue;
    const size_t dot = key.rfind('.');
    const std::string slot = key.substr(dot + 1);
    const std::string name = dot > kPrefix.size() ? key.substr(kPrefix.size(), dot - kPrefix.size()) : "";
    const auto found = by_name.find(name);
    if (found == by_name.end())
      return absl::InvalidArgumentError(
          absl::StrCat("optimizer state ", key, ": no parameter \"", name, "\" is trained"));
    if (std::find(slots.begin(), slots.end(), slot) == slots.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("optimizer state ", key, ": found slot ", slot, "; allowed: ", absl::StrJoin(slots, ", ")));
    }
    const torch::Tensor& parameter = found->second->tensor;
    const std::vector<int64_t> sizes = SlotSizes(slot, StateShapeOf(*found->second));
    if (!tensor.defined() || tensor.sizes() != sizes || tensor.scalar_type() != parameter.scalar_type()) {
      return absl::InvalidArgumentError(
          absl::StrCat("optimizer state ", key, ": found ", tensor.defined() ? Shape(tensor) : "nothing",
                       "; allowed: ", c10::toString(parameter.scalar_type()), " [", absl::StrJoin(sizes, ", "), "]"));
    }
    found->second->slots[slot] = tensor;
  }
  for (const Parameter& parameter : *plan) {
    if (parameter.tensor.numel() == 0 && DividesState()) continue;  // never had any
    for (const std::string& slot : RequiredSlots(ShapeOf(parameter))) {
      if (parameter.steps > 0 && !parameter.slots.contains(slot)) {
        return absl::InvalidArgumentError(
            absl::StrCat("optimizer state: ", kPrefix, parameter.name, ".", slot, " is missing"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Optimizer::LoadState(const TensorMap& tensors, const nlohmann::json& scalars) {
  const torch::NoGradGuard no_grad;
  std::vector<Parameter> plan;
  std::vector<double> lrs;
  try {
    if (absl::Status status = PlanLoad(tensors, scalars, &plan); !status.ok()) return status;
    for (const nlohmann::json& group : scalars.at("groups")) lrs.push_back(group.at("lr").get<double>());
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("optimizer state is damaged: ", error.what()));
  }
  ++loads_;
  prepared_.clear();
  size_t next = 0;
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (lrs.size() == groups_.size()) groups_[i].options.lr = lrs[i];
    for (Parameter& parameter : groups_[i].parameters) {
      Parameter& fresh = plan[next++];
      parameter.steps = fresh.steps;
      parameter.mu_product = fresh.mu_product;
      parameter.slots.clear();
      for (const auto& [slot, tensor] : fresh.slots) {
        const bool alike =
            tensor.sizes() == parameter.tensor.sizes();  // then also in memory: kernels walk both at once
        torch::Tensor place = alike ? torch::empty_like(parameter.tensor)
                                    : torch::empty(tensor.sizes(), parameter.tensor.options().requires_grad(false));
        parameter.slots[slot] = place.copy_(tensor);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace athanor

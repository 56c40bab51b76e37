#include "athanor/runner/state/divided_state.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/layout.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

std::vector<Box> BoxesOf(const OwnedParameter& owned) {
  return BoxesOfRange(owned.shape, owned.begin, owned.begin + owned.value.numel());
}

absl::Status Invalid(const std::string& text) {
  return WithFailureKind(absl::InvalidArgumentError(text), FailureKind::kInvalid);
}

// The parameter that a stored tensor is like: "model.<name>", "ema.<name>", "optim.<name>.<slot>".
std::string ParameterOf(const std::string& name, bool* of_optimizer) {
  *of_optimizer = absl::StartsWith(name, "optim.");
  const size_t first = name.find('.');
  if (*of_optimizer) {
    const size_t last = name.rfind('.');
    return last > first ? name.substr(first + 1, last - first - 1) : "";
  }
  const bool of_model = absl::StartsWith(name, "model.") || absl::StartsWith(name, "ema.");
  return of_model ? name.substr(first + 1) : "";
}

}  // namespace

absl::Status CheckShape(const std::string& name, at::IntArrayRef found, at::IntArrayRef wanted) {
  if (found == wanted) return absl::OkStatus();
  return Invalid(absl::StrCat("tensor '", name, "' is ", c10::str(found), " in the checkpoint and ", c10::str(wanted),
                              " in the model"));
}

void StoreLike(const OwnedParameter& owned, const torch::Tensor& values, const std::string& name,
               const std::vector<std::string>& also, TrainingState* state) {
  if (!owned.divided) {
    state->replicated[name] = values.detach();
    for (const std::string& other : also) state->replicated[other] = values.detach();
    return;
  }
  ShardedTensor& sharded = state->sharded[name];
  sharded = {owned.shape, {}, also};
  int64_t at = 0;
  for (const Box& box : BoxesOf(owned)) {
    const int64_t count = Elements(box);
    sharded.parts.push_back({values.detach().narrow(0, at, count).view(box.extent), box.begin});
    at += count;
  }
}

absl::StatusOr<torch::Tensor> FindLike(const OwnedParameter& owned, const std::string& name,
                                       const TrainingState& state) {
  if (const auto whole = state.replicated.find(name); whole != state.replicated.end()) {
    RETURN_IF_ERROR(CheckShape(name, whole->second.sizes(), owned.shape));
    if (!owned.divided) return whole->second;
    return whole->second.reshape({-1}).narrow(0, owned.begin, owned.value.numel());
  }
  if (owned.divided && owned.value.numel() == 0) return owned.value.detach();
  const auto sharded = state.sharded.find(name);
  if (sharded == state.sharded.end()) return torch::Tensor();
  RETURN_IF_ERROR(CheckShape(name, sharded->second.shape, owned.shape));
  const std::vector<Box> boxes = BoxesOf(owned);
  const std::vector<TensorPart>& parts = sharded->second.parts;
  bool fits = owned.divided && parts.size() == boxes.size();
  std::vector<torch::Tensor> flat;
  for (size_t i = 0; fits && i < boxes.size(); ++i) {
    fits = parts[i].begin == boxes[i].begin && parts[i].values.sizes().vec() == boxes[i].extent;
    flat.push_back(parts[i].values.reshape({-1}));
  }
  if (fits) return torch::cat(flat);
  return Invalid(absl::StrCat("tensor '", name, "' is there in other parts than this rank's: it is of other ranks"));
}

PartsWanted PartsOf(const std::vector<OwnedParameter>& owned,
                    const std::map<std::string, std::vector<std::string>>& tied, bool optimizer) {
  using Parts = std::map<std::string, std::pair<std::vector<int64_t>, std::vector<Box>>>;
  auto by_name = std::make_shared<Parts>();
  for (const OwnedParameter& one : owned) {
    if (!one.divided) continue;
    (*by_name)[one.name] = {one.shape, BoxesOf(one)};
    const auto others = tied.find(one.name);
    if (others == tied.end()) continue;
    for (const std::string& name : others->second) (*by_name)[name] = (*by_name)[one.name];
  }
  if (by_name->empty()) return {};
  return [by_name, optimizer](const std::string& name,
                              const std::vector<int64_t>& shape) -> std::optional<std::vector<Box>> {
    bool of_optimizer = false;
    const auto found = by_name->find(ParameterOf(name, &of_optimizer));
    // One of another shape comes whole: its mistake is found by whoever loads it.
    if (found == by_name->end() || found->second.first != shape || (of_optimizer && !optimizer)) return std::nullopt;
    return found->second.second;
  };
}

}  // namespace athanor

#include "athanor/torch/module_tensors.h"

#include <set>

namespace athanor {
namespace {

using Named = std::vector<std::pair<std::string, torch::Tensor>>;

Named Distinct(const torch::OrderedDict<std::string, torch::Tensor>& tensors) {
  std::set<const c10::TensorImpl*> seen;
  Named distinct;
  for (const auto& item : tensors) {
    if (item.value().defined() && seen.insert(item.value().unsafeGetTensorImpl()).second)
      distinct.emplace_back(item.key(), item.value());
  }
  return distinct;
}

}  // namespace

Named DistinctParameters(const torch::nn::Module& module) {
  return Distinct(module.named_parameters());
}

Named DistinctBuffers(const torch::nn::Module& module) {
  return Distinct(module.named_buffers());
}

std::map<std::string, torch::Tensor> StateOf(const torch::nn::Module& module) {
  std::map<std::string, torch::Tensor> state;
  for (const auto& item : module.named_parameters()) {
    if (item.value().defined()) state.emplace(item.key(), item.value());
  }
  for (const auto& item : module.named_buffers()) {
    if (item.value().defined()) state.emplace(item.key(), item.value());
  }
  return state;
}

std::map<std::string, std::vector<std::string>> TiedNames(const torch::nn::Module& module) {
  std::map<const c10::TensorImpl*, std::string> first;
  std::map<std::string, std::vector<std::string>> tied;
  for (const auto& item : module.named_parameters()) {
    if (!item.value().defined()) continue;
    const auto [found, is_first] = first.emplace(item.value().unsafeGetTensorImpl(), item.key());
    if (!is_first) tied[found->second].push_back(item.key());
  }
  return tied;
}

}  // namespace athanor

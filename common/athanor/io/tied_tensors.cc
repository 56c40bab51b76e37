#include "athanor/io/tied_tensors.h"

#include <tuple>
#include <vector>

namespace athanor {
namespace {

// What makes two tensors one: memory, view, type, and how it is to be read.
using Identity =
    std::tuple<const void*, int64_t, std::vector<int64_t>, std::vector<int64_t>, torch::ScalarType, bool, bool>;

Identity IdentityOf(const torch::Tensor& tensor) {
  return {tensor.storage().unsafeGetStorageImpl(),
          tensor.storage_offset(),
          tensor.sizes().vec(),
          tensor.strides().vec(),
          tensor.scalar_type(),
          tensor.is_conj(),
          tensor.is_neg()};
}

bool HasMemory(const torch::Tensor& tensor) {
  return tensor.defined() && tensor.layout() == torch::kStrided && tensor.has_storage() && tensor.numel() > 0;
}

}  // namespace

std::map<std::string, std::string> FirstNames(const std::map<std::string, torch::Tensor>& tensors) {
  std::map<Identity, std::string> first;
  std::map<std::string, std::string> names;
  for (const auto& [name, tensor] : tensors)
    names[name] = HasMemory(tensor) ? first.emplace(IdentityOf(tensor), name).first->second : name;
  return names;
}

void CastFloats(std::map<std::string, torch::Tensor>* tensors, torch::ScalarType dtype) {
  for (const auto& [name, first] : FirstNames(*tensors)) {  // the first name comes before the others
    torch::Tensor& tensor = tensors->at(name);
    if (!tensor.defined() || !tensor.is_floating_point()) continue;
    tensor = name == first ? tensor.detach().to(dtype) : tensors->at(first);
  }
}

}  // namespace athanor

#include "athanor/parallel/transport/tensor_arguments.h"

#include <ATen/ATen.h>

namespace athanor {
namespace {

using Tensors = std::vector<at::Tensor>;

}  // namespace

void CheckTensor(const at::Tensor& tensor, const char* call) {
  TORCH_CHECK_VALUE(tensor.defined() && tensor.device().is_cpu() && tensor.layout() == c10::kStrided, call,
                    ": a dense tensor on the CPU is needed, found ",
                    tensor.defined() ? tensor.toString() : std::string("an undefined tensor"));
}

at::Tensor& Only(Tensors& tensors, const char* call) {
  TORCH_CHECK_VALUE(tensors.size() == 1, call, ": one tensor is needed, found ", tensors.size());
  CheckTensor(tensors[0], call);
  return tensors[0];
}

Tensors& OnlyList(std::vector<Tensors>& lists, int ranks, const char* call) {
  TORCH_CHECK_VALUE(lists.size() == 1 && lists[0].size() == static_cast<size_t>(ranks), call, ": one list of ", ranks,
                    " tensors (one a rank) is needed");
  for (const at::Tensor& tensor : lists[0]) CheckTensor(tensor, call);
  return lists[0];
}

void CheckTypes(const Tensors& tensors, c10::ScalarType type, const char* call) {
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK_TYPE(tensor.scalar_type() == type, call, ": dtypes differ: ", tensor.scalar_type(), " and ", type);
  }
}

WrittenList::WrittenList(const Tensors& list) {
  for (const at::Tensor& tensor : list) {
    tensors.emplace_back(tensor);
    data.push_back(tensors.back().data());
    counts.push_back(tensor.numel());
  }
}

ReadList::ReadList(const Tensors& list) {
  for (const at::Tensor& tensor : list) {
    tensors.push_back(tensor.contiguous());
    data.push_back(tensors.back().data_ptr());
    counts.push_back(tensor.numel());
  }
}

Tensors EvenParts(const at::Tensor& tensor, int parts, const char* call) {
  TORCH_CHECK_VALUE(tensor.numel() % parts == 0, call, ": ", tensor.numel(), " elements do not divide among ", parts,
                    " ranks");
  const at::Tensor flat = tensor.reshape({-1});
  if (flat.numel() == 0) return Tensors(static_cast<size_t>(parts), flat);
  return flat.split(tensor.numel() / parts);
}

}  // namespace athanor

// PNTensor ("potentially nested"): a tensor that a dataset gives for one sample and that a loader collates into a
// NestedTensor. The reference marks such tensors by a Python subclass; here the type of the batch says it:
//
//   PNTensor one = MakePNTensor({1, 2, 3});
//   NestedTensor batch = CollateNested({one, MakePNTensor({4, 5})});   // shape {2, 3}
//
// It is the tensor itself (converts both ways, shares its storage); tensor(), mask() and concat() are there so that
// code for batches works on one sample too.
#pragma once

#include <concepts>
#include <utility>
#include <vector>

#include "athanor/nested/tensor.h"

namespace athanor {

class PNTensor : public torch::Tensor {
 public:
  using torch::Tensor::Tensor;
  PNTensor(torch::Tensor tensor) : torch::Tensor(std::move(tensor)) {}  // NOLINT(google-explicit-constructor)

  const torch::Tensor& tensor() const { return *this; }
  torch::Tensor mask() const { return torch::ones_like(*this, torch::kBool); }  // all of it is data
  const torch::Tensor& concat() const { return *this; }
};

// The reference's tensor(data, ...): as torch::tensor, with `options` for dtype, device, requires_grad and pinning.
// `data`: a number, a vector of numbers, or numbers of one type in braces: {1, 2, 3}, {{1.5, 2.0}, {3.0, 4.0}}.
inline PNTensor MakePNTensor(const torch::detail::TensorDataContainer& data, const torch::TensorOptions& options = {}) {
  torch::Tensor made = torch::tensor(data, torch::TensorOptions(options).requires_grad(false).pinned_memory(false));
  if (options.pinned_memory()) made = made.pin_memory();
  return made.requires_grad_(options.requires_grad());
}

// The batch of samples of one rank; their sizes may differ. Throws c10::ValueError when ranks or devices differ.
inline NestedTensor CollateNested(const std::vector<torch::Tensor>& samples, const NestedOptions& options = {}) {
  return NestedTensor(samples, options);
}
template <class T>
  requires std::derived_from<T, torch::Tensor>
NestedTensor CollateNested(const std::vector<T>& samples, const NestedOptions& options = {}) {
  return NestedTensor(std::vector<torch::Tensor>(samples.begin(), samples.end()), options);
}

}  // namespace athanor

// NestedTensor out of other forms: padded tensor and mask, a dense tensor, ATen's nested tensors.
#include <algorithm>

#include "athanor/nested/pack.h"
#include "athanor/nested/tensor.h"

namespace athanor {
namespace {

// The sizes of the data in one element's mask: a box at the origin along every dim. Throws for anything else.
std::vector<int64_t> PrefixSizes(const torch::Tensor& mask) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < mask.dim(); ++d) {
    std::vector<int64_t> others;
    for (int64_t o = 0; o < mask.dim(); ++o) {
      if (o != d) others.push_back(o);
    }
    const torch::Tensor along = others.empty() ? mask : mask.sum(others) > 0;
    sizes.push_back(along.sum().item<int64_t>());
  }
  torch::Tensor box = mask;
  for (int64_t d = 0; d < mask.dim(); ++d) box = box.narrow(d, 0, sizes[static_cast<size_t>(d)]);
  const bool full = box.all().item<bool>() && box.numel() == mask.sum().item<int64_t>();
  TORCH_CHECK_VALUE(full, "from_tensor_mask() with a ", mask.dim() + 1,
                    "-D mask requires data to be a prefix along each dim; interior gaps are not supported.");
  return sizes;
}

// The sizes of all rows of a 2-D mask at once.
std::vector<int64_t> PrefixLengths(const torch::Tensor& mask) {
  const torch::Tensor lengths = mask.sum(1);
  const torch::Tensor places = torch::arange(mask.size(1), mask.device());
  TORCH_CHECK_VALUE(torch::equal(places.unsqueeze(0) < lengths.unsqueeze(1), mask),
                    "from_tensor_mask() with 2-D masks requires each row to be a valid prefix mask; interior False gaps"
                    " are not supported.");
  const torch::Tensor on_host = lengths.to(torch::kCPU).contiguous();
  return {on_host.data_ptr<int64_t>(), on_host.data_ptr<int64_t>() + on_host.numel()};
}

NestedTensor Selected(const torch::Tensor& tensor, const torch::Tensor& mask, const NestedOptions& options,
                      bool batched) {
  const torch::Tensor chosen = tensor.index({mask});
  if (!batched) return NestedTensor(chosen, options);
  return NestedTensor(chosen.unbind(0), options);
}

}  // namespace

NestedTensor NestedTensor::FromTensorMask(const torch::Tensor& tensor, const torch::Tensor& mask,
                                          const NestedOptions& options, bool batched) {
  torch::Tensor padded = tensor;
  torch::Tensor valid = mask.to(torch::kBool);
  if (options.mask_value) valid = valid.logical_not();
  TORCH_CHECK_VALUE(valid.dim() >= 1 && valid.dim() <= padded.dim(), "A mask of rank ", valid.dim(),
                    " does not fit a tensor of rank ", padded.dim());
  if (!options.batch_first && valid.dim() >= 2) {
    padded = padded.transpose(0, 1);
    valid = valid.transpose(0, 1);
  }
  TORCH_CHECK_VALUE(padded.size(0) == valid.size(0), "Tensor/mask batch dimension mismatch: ", padded.size(0), " vs ",
                    valid.size(0));
  if (valid.dim() == 1) return Selected(padded, valid, options, batched);
  for (int64_t d = 1; d < valid.dim(); ++d) {
    TORCH_CHECK_VALUE(padded.size(d) == valid.size(d), "Tensor and mask differ along dim ", d, ": ", padded.size(d),
                      " and ", valid.size(d));
  }
  const int64_t batch = padded.size(0);
  std::vector<int64_t> lengths;
  if (valid.dim() == 2) lengths = PrefixLengths(valid);
  std::vector<torch::Tensor> elements;
  for (int64_t b = 0; b < batch; ++b) {
    const std::vector<int64_t> box =
        valid.dim() == 2 ? std::vector<int64_t>{lengths[static_cast<size_t>(b)]} : PrefixSizes(valid[b]);
    torch::Tensor element = padded[b];
    for (size_t d = 0; d < box.size(); ++d) element = element.narrow(static_cast<int64_t>(d), 0, box[d]);
    elements.push_back(element);
  }
  return NestedTensor(elements, options);
}

NestedTensor NestedTensor::NestedLike(const torch::Tensor& dense, bool strict) const {
  TORCH_CHECK_VALUE(!strict || dense.sizes() == torch::IntArrayRef(shape()),
                    "The shape of NestedTensor and input tensor does not match, ", torch::IntArrayRef(shape()),
                    " != ", dense.sizes());
  TORCH_CHECK_VALUE(dense.dim() == dim(), "A NestedTensor of ", dim(), " dims and a tensor of ", dense.dim(),
                    " dims do not match");
  const torch::Tensor padded = batch_dim() == 1 ? dense.transpose(0, 1) : dense;
  TORCH_CHECK_VALUE(padded.size(0) == len(), "The batch size of NestedTensor and input tensor does not match, ", len(),
                    " != ", padded.size(0));
  bool wide_enough = true;
  for (int64_t d = 0; d < structure_->rank(); ++d) {
    wide_enough = wide_enough && padded.size(d + 1) >= structure_->max_sizes()[static_cast<size_t>(d)];
  }
  if (wide_enough) return WithValues(nested::Unpadded(padded, *structure_));
  std::vector<torch::Tensor> elements;
  for (int64_t b = 0; b < len(); ++b) {
    torch::Tensor element = padded[b];
    for (int64_t d = 0; d < structure_->rank(); ++d) {
      element = element.narrow(d, 0, std::min(element.size(d), structure_->sizes(b)[static_cast<size_t>(d)]));
    }
    elements.push_back(element);
  }
  return nested::Repack(elements, *this);
}

torch::Tensor NestedTensor::ToTorchNested() const {
  TORCH_CHECK_VALUE(len() > 0 && structure_->rank() > 0,
                    "ATen's nested tensors need at least one element of rank 1 or more");
  return at::_nested_tensor_from_tensor_list(Unbind(), dtype(), std::nullopt, device(), std::nullopt);
}

NestedTensor NestedTensor::FromTorchNested(const torch::Tensor& nested, const NestedOptions& options) {
  TORCH_CHECK_TYPE(nested.is_nested(), "expected one of ATen's nested tensors, got a dense tensor of shape ",
                   nested.sizes());
  return NestedTensor(nested.unbind(0), options);
}

}  // namespace athanor

// NestedTensor: a batch of tensors of one rank and unequal sizes, stored packed and without padding.
//
//   NestedTensor x({torch::ones({3, 8}), torch::ones({5, 8})});   // values 8 x 8, shape {2, 5, 8}
//   torch::Tensor padded = x.tensor();                            // 2 x 5 x 8, filled up with padding_value
//   torch::Tensor mask = x.mask();                                // 2 x 5, true = data
//   NestedTensor y = nested::linear(nested::relu(x + 1), weight); // nested/ops/arithmetic.h, nested/ops/layers.h …
//   nested::sum(y).dense().backward();                            // gradients reach the packed values
//
// How elements are packed: nested/structure.h. Every operation lives in namespace athanor::nested under the name that
// it has for tensors; docs/nested-tensors.md lists all of them.
//
// Coordinates: dims count the batch dim, as for the padded tensor: {B, d0, d1, …}, or {d0, B, d1, …} when
// batch_first is false. Any device and dtype; offsets and shapes stay on the CPU. (What is computed on 8-bit floats is
// up to LibTorch: packing, views, selection of elements and casts work, arithmetic does not.)
// Copies are cheap and share structure and values, as torch::Tensor does. Reading from several threads is safe.
//
// Errors are LibTorch's exceptions, since operators cannot return a status: c10::ValueError (sizes, options),
// c10::TypeError (kind of an argument), c10::IndexError (out of range), c10::NotImplementedError, else c10::Error.
// At the edge to code that returns absl::Status wrap the call in RunTorch (torch/status.h).
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>
#include "athanor/nested/structure.h"

namespace athanor {

// The three that only affect views.
struct NestedView {
  bool batch_first = true;   // {B, d0, …}; false: {d0, B, …}
  double padding_value = 0;  // fills the padded view, cast to its dtype
  bool mask_value = false;   // what the mask says at padding; data gets the opposite
  bool operator==(const NestedView&) const = default;
};

struct NestedOptions : NestedView {
  std::optional<torch::Dtype> dtype;    // absent: the dtypes of the elements promoted
  std::optional<torch::Device> device;  // absent: that of the elements
  // The packed values require gradients. Elements that are part of a graph stay so: gradients reach them as well.
  bool requires_grad = false;
  bool pin_memory = false;
};

class NestedValue;
class NestedIndex;

class NestedTensor {
 public:
  NestedTensor();  // an empty batch of float32
  // Throws c10::ValueError when ranks or devices differ.
  explicit NestedTensor(const std::vector<torch::Tensor>& elements, const NestedOptions& options = {});
  explicit NestedTensor(const torch::Tensor& element, const NestedOptions& options = {});  // a batch of one
  // Rank 1 out of numbers: FromLists<int64_t>({{1, 2, 3}, {4, 5}}).
  template <class T>
  static NestedTensor FromLists(const std::vector<std::vector<T>>& lists, const NestedOptions& options = {});
  // `values` as concat() gives it and the elements' shapes. Throws c10::ValueError when the counts do not match.
  static NestedTensor FromConcatenated(const torch::Tensor& values, const std::vector<std::vector<int64_t>>& shapes,
                                       const NestedOptions& options = {});
  // The inverse of tensor_mask(). A mask of rank 1 selects entries of `tensor` as one element (batched: one element for
  // each true entry); rank 2: each row must be a prefix; higher: a prefix along every dim. Throws c10::ValueError for
  // gaps or batch sizes that differ.
  static NestedTensor FromTensorMask(const torch::Tensor& tensor, const torch::Tensor& mask,
                                     const NestedOptions& options = {}, bool batched = false);
  // A strided nested tensor of ATen, differentiable.
  static NestedTensor FromTorchNested(const torch::Tensor& nested, const NestedOptions& options = {});
  // `values` is rows x static sizes of `structure`; nothing is copied.
  static NestedTensor FromPacked(torch::Tensor values, NestedStructure::Ptr structure, const NestedView& view = {});

  // Views. Padded view and mask are computed once and kept until values change (not while gradients are recorded). They
  // are for reading: where nothing is padded, tensor() shares memory with the values, as reshape() does, so that what
  // is written into it changes them; else it is lost. clone() what you mean to write into.
  torch::Tensor tensor() const;
  torch::Tensor mask() const;  // bool; without the last dim when that is static and the elements have rank > 1
  std::pair<torch::Tensor, torch::Tensor> tensor_mask() const { return {tensor(), mask()}; }
  const torch::Tensor& concat() const { return values_; }
  const torch::Tensor& values() const { return values_; }
  std::pair<torch::Tensor, std::vector<std::vector<int64_t>>> concatenate() const;
  torch::Tensor offsets() const { return structure_->Offsets(); }
  const NestedStructure::Ptr& structure() const { return structure_; }

  // As one tensor: B and the maximum of each dim.
  std::vector<int64_t> shape() const;
  int64_t size(int64_t dim) const;  // c10::IndexError when out of range
  int64_t dim() const { return structure_->rank() + 1; }
  int64_t numel() const { return structure_->numel(); }  // real elements only
  int64_t len() const { return structure_->batch_size(); }
  double occupancy() const;  // numel() / product of shape(); 0 for an empty batch
  int64_t batch_dim() const { return view_.batch_first || structure_->rank() == 0 ? 0 : 1; }
  torch::Dtype dtype() const { return values_.scalar_type(); }
  torch::Device device() const { return values_.device(); }

  const NestedView& view() const { return view_; }
  bool batch_first() const { return view_.batch_first; }
  double padding_value() const { return view_.padding_value; }
  bool mask_value() const { return view_.mask_value; }
  void set_batch_first(bool value);
  void set_padding_value(double value);
  void set_mask_value(bool value);

  // Elements; views of the packed values, gradients flow through them.
  torch::Tensor Element(int64_t index) const;  // negative from the end; c10::IndexError when out of range
  torch::Tensor operator[](int64_t index) const { return Element(index); }
  std::vector<torch::Tensor> Unbind() const;
  // x[index…]: see nested/index.h.
  NestedValue Index(const std::vector<NestedIndex>& index) const;
  void Assign(const std::vector<NestedIndex>& index, const NestedValue& value);

  // A dense tensor packed like this one. Strict: its shape must equal shape(). Else only the batch sizes must: what is
  // beyond this one's elements is cut, and where it is narrower the elements become shorter.
  NestedTensor NestedLike(const torch::Tensor& dense, bool strict = true) const;
  torch::Tensor ToTorchNested() const;  // ATen's strided nested tensor, differentiable

  NestedTensor to(torch::Dtype dtype) const { return WithValues(values_.to(dtype)); }
  // `non_blocking`: a copy from pinned memory is queued on the device's current stream.
  NestedTensor to(const torch::Device& device, bool non_blocking = false) const {
    return WithValues(values_.to(device, non_blocking));
  }
  NestedTensor to(torch::DeviceType type, bool non_blocking = false) const {
    return to(torch::Device(type), non_blocking);
  }
  NestedTensor to(const torch::TensorOptions& options) const { return WithValues(values_.to(options)); }
  NestedTensor clone() const { return WithValues(values_.clone()); }
  NestedTensor detach() const { return WithValues(values_.detach()); }
  NestedTensor contiguous() const { return WithValues(values_.contiguous()); }
  NestedTensor pin_memory() const { return WithValues(values_.pin_memory()); }

  bool requires_grad() const { return values_.requires_grad(); }
  NestedTensor& requires_grad_(bool value = true);
  torch::Tensor grad() const { return values_.grad(); }  // of the packed values

  // What a checkpoint keeps: tensors by name ("values", "sizes", "options", and "dims" of a batch without elements),
  // with the view options and whether gradients are required. FromState throws c10::ValueError for a state that is
  // incomplete, of an unknown version or inconsistent; it reads those of earlier versions.
  std::map<std::string, torch::Tensor> State() const;
  static NestedTensor FromState(const std::map<std::string, torch::Tensor>& state);

  // This structure and view with other values of as many rows.
  NestedTensor WithValues(torch::Tensor values) const { return FromPacked(std::move(values), structure_, view_); }
  NestedTensor WithView(const NestedView& view) const { return FromPacked(values_, structure_, view); }

 private:
  struct Views;
  void ForgetViews();

  NestedStructure::Ptr structure_;
  torch::Tensor values_;
  NestedView view_;
  std::shared_ptr<Views> views_;
};

// The elements, one a line; beyond ten the first five and the count.
std::string ToString(const NestedTensor& tensor);
std::ostream& operator<<(std::ostream& out, const NestedTensor& tensor);
// A list of the elements, each a list (of lists …) of its numbers: bool, integers, or double; complex numbers are
// [real, imaginary]. Waits for the device. NaN and infinities are kept, though dump() writes null for them.
nlohmann::json ToJson(const NestedTensor& tensor);

// An operand or a result: a dense tensor (numbers become one that does not promote dtypes) or a nested one.
class NestedValue {
 public:
  NestedValue(NestedTensor nested) : value_(std::move(nested)) {}  // NOLINT(google-explicit-constructor)
  NestedValue(torch::Tensor dense) : value_(std::move(dense)) {}   // NOLINT(google-explicit-constructor)
  NestedValue(const torch::Scalar& number);                        // NOLINT(google-explicit-constructor)
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  NestedValue(T number) : NestedValue(torch::Scalar(number)) {}  // NOLINT(google-explicit-constructor)

  bool is_nested() const { return std::holds_alternative<NestedTensor>(value_); }
  const NestedTensor& nested() const;  // c10::TypeError when dense
  const torch::Tensor& dense() const;  // c10::TypeError when nested

 private:
  std::variant<torch::Tensor, NestedTensor> value_;
};

template <class T>
NestedTensor NestedTensor::FromLists(const std::vector<std::vector<T>>& lists, const NestedOptions& options) {
  std::vector<torch::Tensor> elements;
  for (const auto& list : lists) elements.push_back(torch::tensor(list));
  return NestedTensor(elements, options);
}

}  // namespace athanor

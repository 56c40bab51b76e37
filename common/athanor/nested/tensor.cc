#include "athanor/nested/tensor.h"

#include <algorithm>
#include <functional>
#include <mutex>
#include <numeric>

#include "athanor/nested/pack.h"

namespace athanor {
namespace {

constexpr int64_t kStateVersion = 2;  // 1 had neither requires_grad among the options nor dims

int64_t Product(torch::IntArrayRef sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

torch::Dtype Promoted(const std::vector<torch::Tensor>& elements) {
  torch::Dtype dtype = elements[0].scalar_type();
  for (const auto& element : elements) dtype = torch::promote_types(dtype, element.scalar_type());
  return dtype;
}

torch::Tensor Finish(torch::Tensor values, const NestedOptions& options) {
  if (options.dtype) values = values.to(*options.dtype);
  if (options.device) values = values.to(*options.device);
  if (options.pin_memory) values = values.pin_memory();
  if (!options.requires_grad) return values;
  if (values.requires_grad()) {
    if (!values.is_leaf()) values.retain_grad();  // part of the elements' graph, and grad() is there nevertheless
    return values;
  }
  return values.detach().requires_grad_(true);
}

}  // namespace

// The derived views of one (values, structure, view), shared by the copies of a tensor.
struct NestedTensor::Views {
  std::mutex mutex;
  torch::Tensor padded;
  uint32_t version = 0;         // of the values that `padded` was made from
  uint32_t padded_version = 0;  // as it was made: another one means that somebody wrote into it
  torch::Tensor mask;
  uint32_t mask_version = 0;
};

namespace {

uint32_t VersionOf(const torch::Tensor& tensor) {
  return tensor.is_inference() ? 0 : static_cast<uint32_t>(tensor._version());
}

}  // namespace

NestedTensor::NestedTensor()
    : structure_(NestedStructure::Make(0, 0, {})), values_(torch::empty({0})), views_(std::make_shared<Views>()) {}

NestedTensor::NestedTensor(const std::vector<torch::Tensor>& elements, const NestedOptions& options) : NestedTensor() {
  view_ = options;
  if (elements.empty()) {
    values_ = Finish(values_, options);
    return;
  }
  for (const auto& element : elements) {
    TORCH_CHECK_VALUE(element.dim() == elements[0].dim(),
                      "All elements of a NestedTensor must have the same number of dims, got ", elements[0].dim(),
                      " and ", element.dim());
    TORCH_CHECK_VALUE(options.device || element.device() == elements[0].device(),
                      "All elements of a NestedTensor must be on one device, got ", elements[0].device(), " and ",
                      element.device(), "; give `device` to move them");
  }
  const torch::Dtype dtype = options.dtype.value_or(Promoted(elements));
  const torch::Device device = options.device.value_or(elements[0].device());
  std::vector<torch::Tensor> alike;
  for (const auto& element : elements) alike.push_back(element.to(device, dtype));
  auto [values, structure] = nested::PackElements(alike);
  structure_ = std::move(structure);
  values_ = Finish(std::move(values), options);
}

NestedTensor::NestedTensor(const torch::Tensor& element, const NestedOptions& options)
    : NestedTensor(std::vector<torch::Tensor>{element}, options) {}

NestedTensor NestedTensor::FromPacked(torch::Tensor values, NestedStructure::Ptr structure, const NestedView& view) {
  // An operation on a batch without elements knows the new static sizes by the values alone.
  if (structure->batch_size() == 0 && values.dim() == 1 + static_cast<int64_t>(structure->static_dims().size()))
    structure = structure->WithStaticSizes(values.sizes().slice(1));
  const bool fits = values.dim() >= 1 && values.size(0) == structure->rows() &&
                    (structure->batch_size() == 0 || values.sizes().slice(1) == structure->static_sizes());
  TORCH_CHECK_VALUE(fits, "Packed values of shape ", values.sizes(), " do not fit a structure of ", structure->rows(),
                    " rows with static sizes ", torch::IntArrayRef(structure->static_sizes()));
  NestedTensor made;
  made.values_ = std::move(values);
  made.structure_ = std::move(structure);
  made.view_ = view;
  return made;
}

NestedTensor NestedTensor::FromConcatenated(const torch::Tensor& values,
                                            const std::vector<std::vector<int64_t>>& shapes,
                                            const NestedOptions& options) {
  if (shapes.empty()) return NestedTensor(std::vector<torch::Tensor>{}, options);
  NestedStructure::Ptr structure = NestedStructure::Make(shapes);
  TORCH_CHECK_VALUE(values.numel() == structure->numel(), "Concatenated values hold ", values.numel(),
                    " numbers, the shapes ask for ", structure->numel());
  std::vector<int64_t> packed = {structure->rows()};
  packed.insert(packed.end(), structure->static_sizes().begin(), structure->static_sizes().end());
  return FromPacked(Finish(values.reshape(packed), options), std::move(structure), options);
}

std::pair<torch::Tensor, std::vector<std::vector<int64_t>>> NestedTensor::concatenate() const {
  return {values_, structure_->Shapes()};
}

std::vector<int64_t> NestedTensor::shape() const {
  std::vector<int64_t> sizes = structure_->PaddedSizes();
  if (batch_dim() == 1) std::swap(sizes[0], sizes[1]);
  return sizes;
}

int64_t NestedTensor::size(int64_t dim) const {
  const int64_t at = dim < 0 ? dim + this->dim() : dim;
  TORCH_CHECK_INDEX(at >= 0 && at < this->dim(), "Dimension out of range (expected to be in range of [", -this->dim(),
                    ", ", this->dim() - 1, "], but got ", dim, ")");
  return shape()[static_cast<size_t>(at)];
}

double NestedTensor::occupancy() const {
  const int64_t slots = Product(shape());
  return slots == 0 ? 0 : static_cast<double>(numel()) / static_cast<double>(slots);
}

void NestedTensor::ForgetViews() {
  views_ = std::make_shared<Views>();
}

void NestedTensor::set_batch_first(bool value) {
  view_.batch_first = value;
  ForgetViews();
}

void NestedTensor::set_padding_value(double value) {
  view_.padding_value = value;
  ForgetViews();
}

void NestedTensor::set_mask_value(bool value) {
  view_.mask_value = value;
  ForgetViews();
}

torch::Tensor NestedTensor::tensor() const {
  const auto make = [this] {
    torch::Tensor padded = nested::Padded(values_, *structure_, view_.padding_value);
    return batch_dim() == 1 ? padded.transpose(0, 1) : padded;
  };
  if (values_.requires_grad()) return make();
  const std::lock_guard<std::mutex> lock(views_->mutex);
  const uint32_t version = VersionOf(values_);
  if (!views_->padded.defined() || views_->version != version || views_->padded_version != VersionOf(views_->padded)) {
    views_->padded = make();
    views_->version = version;
    views_->padded_version = VersionOf(views_->padded);
  }
  return views_->padded;
}

torch::Tensor NestedTensor::mask() const {
  const std::lock_guard<std::mutex> lock(views_->mutex);
  if (views_->mask.defined() && views_->mask_version == VersionOf(views_->mask)) return views_->mask;
  const auto flags = torch::TensorOptions(device()).dtype(torch::kBool);
  const int64_t rank = structure_->rank();
  const bool drop = rank > 1 && structure_->IsStatic(rank - 1);
  std::vector<int64_t> full = {structure_->rows()};
  full.insert(full.end(), structure_->static_sizes().begin(), structure_->static_sizes().end());
  if (drop) full.back() = 1;
  const NestedStructure::Ptr marked = drop ? structure_->WithTail(1, {1}) : structure_;
  torch::Tensor mask = nested::Padded(torch::full(full, !view_.mask_value, flags), *marked, view_.mask_value ? 1 : 0);
  if (drop) mask = mask.squeeze(-1);
  if (batch_dim() == 1) mask = mask.transpose(0, 1);
  views_->mask_version = VersionOf(mask);
  return views_->mask = mask;
}

torch::Tensor NestedTensor::Element(int64_t index) const {
  const int64_t at = index < 0 ? index + len() : index;
  TORCH_CHECK_INDEX(at >= 0 && at < len(), "index ", index, " is out of range for a batch of ", len());
  const torch::Tensor rows =
      values_.narrow(0, structure_->FirstRow(at), structure_->packed_sizes()[static_cast<size_t>(at)]);
  return nested::UnpackElement(rows, *structure_, at);
}

std::vector<torch::Tensor> NestedTensor::Unbind() const {
  std::vector<torch::Tensor> elements;
  if (len() == 0) return elements;
  elements = values_.split_with_sizes(structure_->packed_sizes());
  for (int64_t b = 0; b < len(); ++b) {
    auto& element = elements[static_cast<size_t>(b)];
    element = nested::UnpackElement(element, *structure_, b);
  }
  return elements;
}

NestedTensor& NestedTensor::requires_grad_(bool value) {
  values_.requires_grad_(value);
  ForgetViews();
  return *this;
}

std::map<std::string, torch::Tensor> NestedTensor::State() const {
  const torch::Tensor sizes = [this] {
    std::vector<int64_t> all;
    for (int64_t b = 0; b < len(); ++b) all.insert(all.end(), structure_->sizes(b).begin(), structure_->sizes(b).end());
    return torch::tensor(all, torch::kInt64).reshape({len(), structure_->rank()});
  }();
  const std::vector<double> options = {static_cast<double>(kStateVersion), view_.batch_first ? 1.0 : 0.0,
                                       view_.padding_value, view_.mask_value ? 1.0 : 0.0, requires_grad() ? 1.0 : 0.0};
  std::map<std::string, torch::Tensor> state = {
      {"values", values_.detach()}, {"sizes", sizes}, {"options", torch::tensor(options, torch::kFloat64)}};
  if (len() == 0) state["dims"] = torch::tensor(structure_->Dims(), torch::kInt64);
  return state;
}

NestedTensor NestedTensor::FromState(const std::map<std::string, torch::Tensor>& state) {
  for (const char* name : {"values", "sizes", "options"}) {
    TORCH_CHECK_VALUE(state.count(name) == 1, "A NestedTensor's state needs the tensor '", name, "'");
  }
  const torch::Tensor& options = state.at("options");
  TORCH_CHECK_VALUE(options.scalar_type() == torch::kFloat64 && options.dim() == 1 && options.numel() >= 4,
                    "'options' of a NestedTensor's state must be float64 of rank 1, with 4 numbers or more");
  const auto at = [&](int64_t i) { return options[i].item<double>(); };
  TORCH_CHECK_VALUE(at(0) >= 1 && at(0) <= kStateVersion && options.numel() == (at(0) == 1 ? 4 : 5),
                    "A NestedTensor's state of version ", at(0), " with ", options.numel(),
                    " options is unknown; this one reads versions up to ", kStateVersion);
  const auto integers = [&](const char* name, int64_t rank) {
    torch::Tensor tensor = state.at(name).to(torch::kCPU).contiguous();
    TORCH_CHECK_VALUE(tensor.scalar_type() == torch::kInt64 && tensor.dim() == rank, "'", name,
                      "' of a NestedTensor's state must be int64 of rank ", rank);
    return tensor;
  };
  const auto numbers = [](const torch::Tensor& tensor) {
    return std::vector<int64_t>(tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel());
  };
  NestedView view;
  view.batch_first = at(1) != 0;
  view.padding_value = at(2);
  view.mask_value = at(3) != 0;
  const torch::Tensor sizes = integers("sizes", 2);
  auto structure = NestedStructure::Make(sizes.size(0), sizes.size(1), numbers(sizes));
  if (sizes.size(0) == 0 && state.count("dims") == 1)
    structure = NestedStructure::MakeEmpty(numbers(integers("dims", 1)));
  NestedTensor made = FromPacked(state.at("values"), std::move(structure), view);
  if (options.numel() > 4 && at(4) != 0) made.values_ = made.values_.detach().requires_grad_(true);
  return made;
}

NestedValue::NestedValue(const torch::Scalar& number) {
  torch::Tensor wrapped = at::scalar_to_tensor(number);
  wrapped.unsafeGetTensorImpl()->set_wrapped_number(true);
  value_ = std::move(wrapped);
}

const NestedTensor& NestedValue::nested() const {
  TORCH_CHECK_TYPE(is_nested(), "expected a NestedTensor, got a dense tensor of shape ",
                   std::get<torch::Tensor>(value_).sizes());
  return std::get<NestedTensor>(value_);
}

const torch::Tensor& NestedValue::dense() const {
  TORCH_CHECK_TYPE(!is_nested(), "expected a dense tensor, got a NestedTensor");
  return std::get<torch::Tensor>(value_);
}

}  // namespace athanor

// NestedTensor as text and as lists.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>

#include <nlohmann/json.hpp>
#include "athanor/nested/tensor.h"

namespace athanor {
namespace {

constexpr int64_t kAllShown = 10;
constexpr int64_t kShownOfMany = 5;
constexpr int64_t kEntriesShown = 1000;  // of one element

std::string Format(double value, const char* format) {
  char text[400];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

bool IsWhole(double value) {
  return !std::isfinite(value) || value == std::floor(value);
}

// The numbers of one element, all as wide as the widest.
std::vector<std::string> Numbers(const torch::Tensor& element) {
  const torch::Tensor flat = element.detach().to(torch::kCPU).contiguous().flatten();
  std::vector<std::string> texts;
  if (!torch::isFloatingType(element.scalar_type()) && !torch::isComplexType(element.scalar_type())) {
    const torch::Tensor integers = flat.to(torch::kInt64);
    for (int64_t i = 0; i < integers.numel(); ++i) {
      const int64_t value = integers.data_ptr<int64_t>()[i];
      texts.push_back(element.scalar_type() == torch::kBool ? (value != 0 ? "True" : "False") : std::to_string(value));
    }
  } else if (torch::isComplexType(element.scalar_type())) {
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const auto value = flat[i].item<c10::complex<double>>();
      texts.push_back(Format(value.real(), "%.4f") + Format(value.imag(), "%+.4f") + "j");
    }
  } else {
    const torch::Tensor numbers = flat.to(torch::kFloat64);
    const double* data = numbers.data_ptr<double>();
    const bool whole = std::all_of(data, data + numbers.numel(), IsWhole);
    for (int64_t i = 0; i < numbers.numel(); ++i) {
      texts.push_back(std::isfinite(data[i]) ? Format(data[i], whole ? "%.0f." : "%.4f") : Format(data[i], "%f"));
    }
  }
  size_t width = 0;
  for (const auto& text : texts) width = std::max(width, text.size());
  for (auto& text : texts) text.insert(0, width - text.size(), ' ');
  return texts;
}

void Write(const std::vector<std::string>& numbers, torch::IntArrayRef sizes, size_t depth, size_t* next,
           std::ostream& out) {
  if (depth == sizes.size()) {
    out << numbers[(*next)++];
    return;
  }
  out << '[';
  for (int64_t i = 0; i < sizes[depth]; ++i) {
    if (i > 0) out << (depth + 1 == sizes.size() ? ", " : ",\n    " + std::string(depth + 1, ' '));
    Write(numbers, sizes, depth + 1, next, out);
  }
  out << ']';
}

nlohmann::json Number(const torch::Tensor& flat, int64_t at) {
  switch (flat.scalar_type()) {
    case torch::kBool:
      return flat.data_ptr<bool>()[at];
    case torch::kInt64:
      return flat.data_ptr<int64_t>()[at];
    case torch::kComplexDouble: {
      const auto& value = flat.data_ptr<c10::complex<double>>()[at];
      return {value.real(), value.imag()};
    }
    default:
      return flat.data_ptr<double>()[at];
  }
}

nlohmann::json Lists(const torch::Tensor& flat, torch::IntArrayRef sizes, int64_t* next) {
  if (sizes.empty()) return Number(flat, (*next)++);
  nlohmann::json list = nlohmann::json::array();
  for (int64_t i = 0; i < sizes[0]; ++i) list.push_back(Lists(flat, sizes.slice(1), next));
  return list;
}

}  // namespace

nlohmann::json ToJson(const NestedTensor& tensor) {
  torch::Dtype wide = torch::kInt64;
  if (tensor.dtype() == torch::kBool) wide = torch::kBool;
  if (torch::isFloatingType(tensor.dtype())) wide = torch::kFloat64;
  if (torch::isComplexType(tensor.dtype())) wide = torch::kComplexDouble;
  nlohmann::json lists = nlohmann::json::array();
  const NestedTensor host = tensor.detach().to(torch::kCPU).to(wide);
  for (const torch::Tensor& element : host.Unbind()) {
    int64_t next = 0;
    lists.push_back(Lists(element.contiguous().flatten(), element.sizes(), &next));
  }
  return lists;
}

std::string ToString(const NestedTensor& tensor) {
  if (tensor.len() == 0) return "NestedTensor()";
  const int64_t shown = tensor.len() <= kAllShown ? tensor.len() : kShownOfMany;
  std::ostringstream out;
  out << "NestedTensor([\n";
  for (int64_t b = 0; b < shown; ++b) {
    const torch::Tensor element = tensor.Element(b);
    out << "    ";
    if (element.numel() > kEntriesShown) {
      out << "tensor of shape " << element.sizes();
    } else {
      size_t next = 0;
      Write(Numbers(element), element.sizes(), 0, &next, out);
    }
    out << (b + 1 < tensor.len() ? ",\n" : "\n");
  }
  if (shown < tensor.len()) out << "    ... (" << tensor.len() << " tensors)\n";
  out << "])";
  return out.str();
}

std::ostream& operator<<(std::ostream& out, const NestedTensor& tensor) {
  return out << ToString(tensor);
}

}  // namespace athanor

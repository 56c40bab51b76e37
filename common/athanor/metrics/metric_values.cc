#include "athanor/metrics/metric_values.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace athanor {
namespace {

std::string Print(double value, const char* format, int decimals) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[400];
  std::snprintf(text, sizeof(text), format, decimals, value);
  return text;
}

constexpr int64_t kEdgeItems = 3, kSummarizeAbove = 1000, kLineWidth = 80;

// How the numbers of one tensor are printed: the rules of torch.Tensor.__repr__. Only what is finite and not zero
// decides.
struct NumberFormat {
  bool whole = true, exponent = false;
  size_t width = 1;

  std::string Bare(double value) const {
    if (exponent) return Print(value, "%.*e", 4);
    return whole ? Print(value, "%.*f", 0) + (std::isfinite(value) ? "." : "") : Print(value, "%.*f", 4);
  }
  std::string Padded(double value) const {
    const std::string text = Bare(value);
    return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
  }
};

NumberFormat FormatOf(const torch::Tensor& shown) {
  const torch::Tensor flat = shown.flatten();
  const double* data = flat.const_data_ptr<double>();
  NumberFormat format;
  double low = HUGE_VAL, high = 0;
  const auto decides = [&](int64_t i) { return std::isfinite(data[i]) && data[i] != 0; };
  for (int64_t i = 0; i < flat.numel(); ++i) {
    if (!decides(i)) continue;
    format.whole = format.whole && data[i] == std::ceil(data[i]);
    low = std::min(low, std::abs(data[i]));
    high = std::max(high, std::abs(data[i]));
  }
  format.exponent = high > 0 && (high / low > 1000 || high > 1e8 || low < 1e-4);
  for (int64_t i = 0; i < flat.numel(); ++i) {
    if (decides(i)) format.width = std::max(format.width, format.Bare(data[i]).size());
  }
  return format;
}

// The begin and the end of each dim.
torch::Tensor Edges(const torch::Tensor& tensor) {
  torch::Tensor edges = tensor;
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    const int64_t size = edges.size(dim);
    if (size > 2 * kEdgeItems)
      edges = torch::cat({edges.narrow(dim, 0, kEdgeItems), edges.narrow(dim, size - kEdgeItems, kEdgeItems)}, dim);
  }
  return edges.contiguous();
}

// The positions along the first dim that are shown; -1 stands for those between.
std::vector<int64_t> Shown(const torch::Tensor& tensor, bool summarize) {
  const int64_t size = tensor.size(0);
  std::vector<int64_t> shown;
  for (int64_t i = 0; i < size; ++i) {
    if (!summarize || size <= 2 * kEdgeItems || i < kEdgeItems || i >= size - kEdgeItems) shown.push_back(i);
    if (summarize && size > 2 * kEdgeItems && i == kEdgeItems) shown.push_back(-1);
  }
  return shown;
}

std::string RowText(const torch::Tensor& row, size_t indent, bool summarize, const NumberFormat& format) {
  const double* data = row.const_data_ptr<double>();
  const size_t room = indent < kLineWidth ? kLineWidth - indent : 0;
  const size_t in_line = std::max<size_t>(1, room / (format.width + 2));
  std::string text = "[";
  size_t count = 0;
  for (const int64_t i : Shown(row, summarize)) {
    if (count > 0) text += count % in_line == 0 ? ",\n" + std::string(indent + 1, ' ') : ", ";
    text += i < 0 ? " ..." : format.Padded(data[i]);
    ++count;
  }
  return text + "]";
}

std::string NestedText(const torch::Tensor& tensor, size_t indent, bool summarize, const NumberFormat& format) {
  if (tensor.dim() == 1) return RowText(tensor.contiguous(), indent, summarize, format);
  const std::string between =
      "," + std::string(static_cast<size_t>(tensor.dim()) - 1, '\n') + std::string(indent + 1, ' ');
  std::string text;
  for (const int64_t i : Shown(tensor, summarize)) {
    if (!text.empty()) text += between;
    text += i < 0 ? "..." : NestedText(tensor[i], indent + 1, summarize, format);
  }
  return "[" + text + "]";
}

// Behind the numbers, on a line of its own where the last one is full.
void AddSuffix(const std::string& suffix, size_t indent, size_t* line, std::string* text) {
  const bool full = *line + suffix.size() + 2 > kLineWidth;
  *text += full ? ",\n" + std::string(indent, ' ') + suffix : ", " + suffix;
  *line = full ? indent + suffix.size() : *line + suffix.size() + 2;
}

std::string SizeText(torch::IntArrayRef sizes) {
  std::string text = "size=(";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  return text + ")";
}

}  // namespace

const torch::Tensor* FindValue(const MetricValues& values, const std::string& name) {
  for (const auto& [found, value] : values) {
    if (found == name) return &value;
  }
  return nullptr;
}

std::string ValueText(const torch::Tensor& value, int decimals) {
  const torch::Tensor host = value.detach().to(torch::kCPU, torch::kFloat64).contiguous();
  if (host.dim() == 0) return Print(host.item<double>(), "%.*f", decimals);
  const std::string prefix = "tensor(";
  const bool summarize = host.numel() > kSummarizeAbove;
  const NumberFormat format = FormatOf(summarize ? Edges(host) : host);
  std::string text = prefix + (host.numel() == 0 ? "[]" : NestedText(host, prefix.size(), summarize, format));
  size_t line = text.size() - (text.rfind('\n') == std::string::npos ? size_t(0) - 1 : text.rfind('\n')) + 1;
  if (host.numel() == 0 && host.dim() != 1) AddSuffix(SizeText(host.sizes()), prefix.size(), &line, &text);
  if (value.scalar_type() == torch::kFloat64) AddSuffix("dtype=torch.float64", prefix.size(), &line, &text);
  return text + ")";
}

}  // namespace athanor

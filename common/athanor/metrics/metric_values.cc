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

// The rules of torch.Tensor.__repr__: whole numbers as "3.", else four decimals, exponents for a wide range.
std::vector<std::string> ReprNumbers(const torch::Tensor& flat) {
  const double* data = flat.data_ptr<double>();
  bool whole = true;
  double low = HUGE_VAL, high = 0;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    if (!std::isfinite(data[i])) continue;
    whole = whole && data[i] == std::ceil(data[i]);
    if (data[i] == 0) continue;
    low = std::min(low, std::abs(data[i]));
    high = std::max(high, std::abs(data[i]));
  }
  const bool exponent = whole ? high / low > 1000 && high > 1e8 : high / low > 1000 || high > 1e8 || low < 1e-4;
  std::vector<std::string> texts;
  size_t width = 0;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    std::string text = exponent && high > 0 ? Print(data[i], "%.*e", 4)
                       : whole              ? Print(data[i], "%.*f", 0) + (std::isfinite(data[i]) ? "." : "")
                                            : Print(data[i], "%.*f", 4);
    width = std::max(width, text.size());
    texts.push_back(std::move(text));
  }
  for (std::string& text : texts) text.insert(0, width - text.size(), ' ');
  return texts;
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
  std::string text = "tensor([";
  const std::vector<std::string> numbers = ReprNumbers(host.flatten());
  for (size_t i = 0; i < numbers.size(); ++i) text += (i > 0 ? ", " : "") + numbers[i];
  text += "]";
  if (value.scalar_type() == torch::kFloat64) text += ", dtype=torch.float64";
  return text + ")";
}

}  // namespace athanor

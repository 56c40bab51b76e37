#include "athanor/runner/step/precision.h"

#include <ATen/autocast_mode.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace athanor {

AutocastScope::AutocastScope(const std::string& precision, const torch::Device& device) : type_(device.type()) {
  if (precision != "bf16" && precision != "fp16" && precision != "fp8") return;
  active_ = true;
  was_enabled_ = at::autocast::is_autocast_enabled(type_);
  was_dtype_ = at::autocast::get_autocast_dtype(type_);
  at::autocast::set_autocast_enabled(type_, true);
  at::autocast::set_autocast_dtype(type_, precision == "fp16" ? at::kHalf : at::kBFloat16);
  at::autocast::increment_nesting();
}

AutocastScope::~AutocastScope() {
  if (!active_) return;
  // The cache holds casted weights: they must not outlive the update.
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(type_, was_enabled_);
  at::autocast::set_autocast_dtype(type_, was_dtype_);
}

Batch CastInputs(Batch batch, std::optional<torch::ScalarType> type) {
  if (!type.has_value()) return batch;
  const auto cast = [&](torch::Tensor& tensor) {
    if (tensor.defined() && tensor.is_floating_point()) tensor = tensor.to(*type);
  };
  cast(batch.input);
  for (auto& [name, tensor] : batch.more) cast(tensor);
  return batch;
}

void GradientScale::Update(bool overflow) {
  if (!enabled_) return;
  if (overflow) {
    scale_ = std::max(scale_ * 0.5, kSmallest);
    good_updates_ = 0;
  } else if (++good_updates_ == kGrowthInterval) {
    scale_ = std::min(scale_ * 2, kLargest);
    good_updates_ = 0;
  }
}

nlohmann::json GradientScale::ToJson() const {
  if (!enabled_) return nullptr;
  return {{"scale", scale_}, {"good_updates", good_updates_}};
}

absl::Status GradientScale::FromJson(const nlohmann::json& json) {
  if (!enabled_ || json.is_null()) return absl::OkStatus();
  if (!json.is_object() || !json.contains("scale") || !json["scale"].is_number() || !json.contains("good_updates") ||
      !json["good_updates"].is_number_integer()) {
    return absl::DataLossError("checkpoint: gradient scale is not {scale, good_updates}");
  }
  const double scale = json["scale"].get<double>();
  if (!(scale > 0 && scale <= kLargest))
    return absl::DataLossError(absl::StrCat("checkpoint: gradient scale ", scale, " is not a number above 0"));
  scale_ = scale;
  good_updates_ = json["good_updates"].get<int64_t>();
  return absl::OkStatus();
}

}  // namespace athanor

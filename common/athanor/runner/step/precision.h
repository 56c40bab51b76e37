// Mixed precision: autocast around forward, and the gradient scale that float16 needs.
//
// Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "athanor/data/dataset.h"

namespace athanor {

// Autocast while it lives (fp8: bfloat16, with Fp8Scope beside it); does nothing for "" and "fp32".
class AutocastScope {
 public:
  AutocastScope(const std::string& precision, const torch::Device& device);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;

 private:
  bool active_ = false;
  bool was_enabled_ = false;
  at::ScalarType was_dtype_ = at::kFloat;
  c10::DeviceType type_;
};

// The batch's dense floating-point inputs in another type, its targets as they are; unset: the batch itself.
Batch CastInputs(Batch batch, std::optional<torch::ScalarType> type);

// Dynamic loss scale, as torch.amp.GradScaler's: begins at 65536, doubles after 2000 good updates in a row, halves (and
// the update is left out) when a gradient overflows, below 1 too. Off: scale 1, no work.
class GradientScale {
 public:
  explicit GradientScale(bool enabled) : enabled_(enabled) {}
  bool enabled() const { return enabled_; }
  double scale() const { return enabled_ ? scale_ : 1.0; }
  // After each attempted update.
  void Update(bool overflow);
  // Whether a smaller scale may still help: gradients that overflow at this one are not those of a broken model yet.
  bool searching() const { return enabled_ && scale_ > kSmallest; }

  nlohmann::json ToJson() const;
  absl::Status FromJson(const nlohmann::json& json);

 private:
  static constexpr int64_t kGrowthInterval = 2000;
  static constexpr double kSmallest = 0x1p-64;  // losses of nearly all that float32 holds have been trained before it
  static constexpr double kLargest = 0x1p127;   // in float32
  bool enabled_;
  double scale_ = 65536.0;
  int64_t good_updates_ = 0;
};

}  // namespace athanor

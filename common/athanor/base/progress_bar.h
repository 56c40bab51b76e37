// "[=========>          ]  50%", wherever progress is shown on a terminal.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"

namespace athanor {

// Empty when `total` is not known (0).
inline std::string ProgressBar(int64_t step, int64_t total) {
  constexpr int kWidth = 20;
  if (total <= 0) return "";
  const double share = std::clamp(static_cast<double>(step) / static_cast<double>(total), 0.0, 1.0);
  const int filled = static_cast<int>(share * kWidth);
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < kWidth) bar += '>';
  bar.resize(kWidth, ' ');
  return absl::StrFormat("[%s] %3d%%", bar, static_cast<int>(share * 100));
}

}  // namespace athanor

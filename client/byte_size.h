// Amounts of bytes as people write them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

// "512", "64KB" (1000), "1.5GiB" (1024); upper or lower case, blanks between number and unit. INVALID_ARGUMENT says
// what is allowed, also for none, negative ones and what 63 bits do not hold.
absl::StatusOr<int64_t> ParseByteSize(const std::string& text);

}  // namespace athanor

// "Did you mean": the known names nearest to one that is not known.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace athanor {

// The candidate that `name` was most likely meant to be; empty when none is near. A third of the letters may be wrong,
// at least one; case, "-" and "_" do not count. Pure, thread-safe.
std::string NearestName(absl::string_view name, std::span<const std::string> candidates);

}  // namespace athanor

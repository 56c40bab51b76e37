#include "athanor/base/near_names.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace athanor {
namespace {

std::string Folded(absl::string_view name) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripAsciiWhitespace(name)), {{"-", "_"}});
}

// Edits (insert, delete, replace, swap of neighbours) from a to b.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string NearestName(absl::string_view name, std::span<const std::string> candidates) {
  constexpr size_t kLongest = 64;  // longer input is no slip of the pen
  if (name.empty() || name.size() > kLongest) return "";
  const std::string wanted = Folded(name);
  std::string best;
  size_t best_distance = wanted.size() / 3 + 1;  // a third of the letters may be wrong, at least one
  for (const std::string& candidate : candidates) {
    const std::string folded = Folded(candidate);
    size_t distance = EditDistance(wanted, folded);
    // "learning_rate_warmup" for "warmup", "interval_steps" for "interval": a whole part of the name.
    const std::vector<absl::string_view> parts = absl::StrSplit(wanted, '_');
    if (folded.size() > 3 && parts.size() > 1 && std::find(parts.begin(), parts.end(), folded) != parts.end()) {
      distance = std::min<size_t>(distance, 1);
    }
    if (distance < best_distance || (distance == best_distance && best.empty() && distance * 3 <= wanted.size() + 2)) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace athanor

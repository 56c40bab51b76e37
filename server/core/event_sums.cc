#include "server/core/event_sums.h"

#include "absl/strings/str_cat.h"

namespace athanor::core {

std::string EventSums::Text(const Sum& sum) {
  return absl::StrCat(sum.unsaid > 1 ? absl::StrCat(sum.unsaid, " of them, the last: ") : "", sum.last);
}

std::optional<std::string> EventSums::Add(const JobId& job, const std::string& type, const std::string& message,
                                          absl::Time now) {
  constexpr int64_t kAlone = 3;
  Sum& sum = sums_[job][type];
  sum.last = message;
  ++sum.unsaid;
  if (sum.said >= kAlone && now < sum.next) return std::nullopt;
  std::string text = Text(sum);
  sum = {.said = sum.said + 1, .unsaid = 0, .next = now + absl::Minutes(1), .last = ""};
  return text;
}

std::vector<std::pair<std::string, std::string>> EventSums::Take(const JobId& job) {
  std::vector<std::pair<std::string, std::string>> unsaid;
  const auto sums = sums_.find(job);
  if (sums == sums_.end()) return unsaid;
  for (const auto& [type, sum] : sums->second) {
    if (sum.unsaid > 0) unsaid.emplace_back(type, Text(sum));
  }
  sums_.erase(sums);
  return unsaid;
}

}  // namespace athanor::core

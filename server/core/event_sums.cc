// Events that repeat with every save.
#include "absl/strings/str_cat.h"
#include "server/core/machine.h"

namespace athanor::core {

// Events that come with every save would push the rest of the history out: after the first few of a generation they are
// summed up, one a minute.
void Machine::SumUp(JobEntry& job, const std::string& type, const std::string& message, Generation generation,
                    Rank rank) {
  constexpr int64_t kAlone = 3;
  EventSum& sum = event_sums_[job.id][type];
  sum.last = message;
  ++sum.unsaid;
  if (sum.said >= kAlone && now_ < sum.next) return;
  const std::string count = sum.unsaid > 1 ? absl::StrCat(sum.unsaid, " of them, the last: ") : "";
  AddEvent(job, type, absl::StrCat(count, message), generation, rank);
  sum = {.said = sum.said + 1, .unsaid = 0, .next = now_ + absl::Minutes(1), .last = ""};
}

void Machine::SaySums(JobEntry& job) {
  auto sums = event_sums_.find(job.id);
  if (sums == event_sums_.end()) return;
  for (const auto& [type, sum] : sums->second) {
    if (sum.unsaid == 0) continue;
    const std::string count = sum.unsaid > 1 ? absl::StrCat(sum.unsaid, " of them, the last: ") : "";
    AddEvent(job, type, absl::StrCat(count, sum.last), job.generation);
  }
  event_sums_.erase(sums);
}

}  // namespace athanor::core

#include "server/core/worker_name.h"

#include "absl/strings/str_cat.h"
#include "server/core/duration_text.h"

namespace athanor::core {

std::string WhyNameTaken(const WorkerEntry& known, const WorkerRegistered& newcomer, bool strict_ranks,
                         absl::Time now) {
  if (known.instance == newcomer.instance || known.state == WorkerState::kLost) return "";
  if (!known.home.empty() && known.home == newcomer.home) return "";
  const std::string who =
      absl::StrCat("duplicate: the name '", known.id.str(), "' belongs to an agent on ", known.host);
  const std::string rule = "; give each agent a --name of its own";
  if (known.session != 0) {
    return absl::StrCat(who, " that is connected, last heard ",
                        absl::FormatDuration(absl::Trunc(now - known.last_heartbeat, absl::Milliseconds(100))), " ago",
                        rule, ", or stop that one first");
  }
  const absl::Time free_at = strict_ranks ? known.lease_until : known.returns_by;
  if (known.leaving || now >= free_at) return "";
  return absl::StrCat(who, " whose connection has ended and that may come back for ", DurationText(free_at - now), rule,
                      ", or wait");
}

}  // namespace athanor::core

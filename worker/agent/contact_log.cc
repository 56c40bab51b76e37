#include "worker/agent/contact_log.h"

#include "absl/strings/str_cat.h"
#include "common/service/listener_probe.h"
#include "common/service/logging_setup.h"

namespace athanor::agent {
namespace {

constexpr absl::Duration kSayAgain = absl::Minutes(1);

}  // namespace

bool ContactLog::IsNews(const std::string& reason, absl::Time now) {
  if (reason == said_ && now < say_again_) return false;
  said_ = reason;
  say_again_ = now + kSayAgain;
  return true;
}

void ContactLog::Connected() {
  Log(spdlog::level::info, "Connected", {{"coordinator", coordinator_}});
  said_.clear();
}

void ContactLog::Ended(const absl::Status& status) {
  Log(spdlog::level::warn, "SessionEnded", {{"coordinator", coordinator_}}, std::string(status.message()));
}

void ContactLog::Refused(const std::string& reason, absl::Time now) {
  // What stands behind the colon may differ each time.
  if (!IsNews(reason.substr(0, reason.find(':')), now)) return;
  Log(spdlog::level::err, "Refused", {{"coordinator", coordinator_}}, reason);
}

void ContactLog::NotConnected(const absl::Status& status, absl::Time now) {
  const std::string reason(status.message());
  if (!IsNews(reason, now)) return;
  Log(spdlog::level::warn, "NotConnected", {{"coordinator", coordinator_}}, reason);
  if (!absl::IsUnavailable(status)) return;
  probes_->Post([coordinator = coordinator_, tls = tls_] {
    const std::string mismatch = TransportMismatch(coordinator, tls, "this agent");
    if (!mismatch.empty()) Log(spdlog::level::err, "NotConnected", {{"coordinator", coordinator}}, mismatch);
  });
}

}  // namespace athanor::agent

#include "athanor/base/failpoint.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace athanor {
namespace {

struct Point {
  bool kill = false;
  int64_t at = 0;  // 0: every hit
  int64_t hits = 0;
};

bool Equals(const char* filter, const char* variable) {
  const char* wanted = std::getenv(filter);
  if (wanted == nullptr) return true;
  const char* found = std::getenv(variable);
  return found != nullptr && std::string(wanted) == found;
}

class Failpoints {
 public:
  Failpoints() {
    const char* text = std::getenv("ATHANOR_FAILPOINT");
    if (text == nullptr || !Equals("ATHANOR_FAILPOINT_RANK", "RANK") ||
        !Equals("ATHANOR_FAILPOINT_GENERATION", "ATHANOR_GENERATION"))
      return;
    for (const std::string& one : std::vector<std::string>(absl::StrSplit(text, ','))) {
      const size_t equals = one.find('=');
      if (equals == std::string::npos) continue;
      const std::vector<std::string> action = absl::StrSplit(one.substr(equals + 1), '@');
      Point point;
      point.kill = action[0] == "kill";
      if (action.size() > 1 && !absl::SimpleAtoi(action[1], &point.at)) continue;
      points_[one.substr(0, equals)] = point;
    }
  }
  bool armed() const { return !points_.empty(); }
  absl::Status Hit(const char* name) {
    std::lock_guard lock(mutex_);
    auto it = points_.find(name);
    if (it == points_.end()) return absl::OkStatus();
    Point& point = it->second;
    if (++point.hits != point.at && point.at != 0) return absl::OkStatus();
    if (point.kill) kill(getpid(), SIGKILL);
    return absl::InternalError(absl::StrCat("failpoint ", name));
  }

 private:
  std::mutex mutex_;
  std::map<std::string, Point> points_;
};

Failpoints& All() {
  static Failpoints points;
  return points;
}

}  // namespace

bool internal::FailpointsArmed() {
  static const bool armed = All().armed();
  return armed;
}

absl::Status HitFailpoint(const char* name) {
  return internal::FailpointsArmed() ? All().Hit(name) : absl::OkStatus();
}

}  // namespace athanor

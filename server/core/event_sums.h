// Events that come with every save would push the rest of a job's history out: after the first few of a generation they
// are summed up, one a minute.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/core/job_spec.h"

namespace athanor::core {

class EventSums {
 public:
  // What to say now, if anything: `message`, or how many there were and the last.
  std::optional<std::string> Add(const JobId& job, const std::string& type, const std::string& message, absl::Time now);
  // At the end of a generation: type and message of what was not said. They are gone then.
  std::vector<std::pair<std::string, std::string>> Take(const JobId& job);
  void Forget(const JobId& job) { sums_.erase(job); }

 private:
  struct Sum {
    int64_t said = 0, unsaid = 0;
    absl::Time next = absl::InfinitePast();
    std::string last;
  };
  static std::string Text(const Sum& sum);

  std::map<JobId, std::map<std::string, Sum>> sums_;  // by event type
};

}  // namespace athanor::core

// How a job is shown while it is watched: on a terminal one live line with events above it, else plain lines.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "athanor/v1/job_service.pb.h"
#include "client/output.h"

namespace athanor {

// "[=====>    ]  51% 612/1200  loss 0.1432  45210 samples/s  eta 3.2s  gen 2 (1 restart)  training", at most `width`
// columns.
std::string ProgressLine(const v1::Job& job, int width);
// "20:01:02.123  RankFailed        g1 r1  killed by signal 9"
std::string EventLine(const v1::JobEvent& event, bool colours);

class ProgressDisplay {
 public:
  explicit ProgressDisplay(Terminal terminal) : terminal_(terminal) {}
  void Update(const v1::WatchJobResponse& update);  // to stderr
  void Close();                                     // leaves the cursor on a line of its own

 private:
  void Erase();
  const Terminal terminal_;
  bool line_open_ = false;
  absl::Time last_plain_ = absl::InfinitePast();
};

}  // namespace athanor

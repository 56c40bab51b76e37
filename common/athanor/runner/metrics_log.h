// Metrics over time as lines that any tool reads: metrics.csv and metrics.jsonl.
//
//   metrics.csv     time,step,epoch,name,value                     one line per value (pandas: .pivot_table("value",
//                                                                  "step", "name", "last"))
//   metrics.jsonl   {"epoch":0.5,"step":60,"time":"2026-11-24T10:00:00.000Z","train.loss":0.31, ...}   one per read-out
//
// Lines are appended, also by a run that continues in its folder: where it went back to a checkpoint, the later line of
// a step holds. A line that a crash cut off is closed. Values that are not finite: nan, inf, -inf in the CSV, null in
// the JSON lines. Not thread-safe.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace athanor {

class MetricsLog {
 public:
  enum class Format { kCsv, kJsonLines };
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Open(const std::string& path, Format format);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;

  // Everything or an error: the lines are handed to the system before it returns.
  absl::Status Append(absl::Time time, int64_t step, double epoch, const std::map<std::string, double>& metrics);

 private:
  MetricsLog(std::string path, Format format, std::FILE* file) : path_(std::move(path)), format_(format), file_(file) {}

  const std::string path_;
  const Format format_;
  std::FILE* file_;
};

}  // namespace athanor

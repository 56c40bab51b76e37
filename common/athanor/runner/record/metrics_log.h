// Metrics over time as lines that any tool reads: metrics.csv and metrics.jsonl.
//
//   metrics.csv     time,step,epoch,name,value                     one line per value (pandas: .pivot_table("value",
//                                                                  "step", "name", "last"))
//   metrics.jsonl   {"epoch":0.5,"step":60,"time":"2026-11-24T10:00:00.000Z","train.loss":0.31, ...}   one per read-out
//
// Lines are appended, also by a run that continues in its folder. One that goes on from a checkpoint drops the rows
// that came after it (DropRows()), one that starts anew sets the rows before it aside (SetAside()): no step stands
// twice. A line that a crash cut off is closed. Values that are not finite: nan, inf, -inf in the CSV, null in
// the JSON lines. Not thread-safe.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
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

  std::string name() const;  // "metrics.csv"
  // Where the next line begins, in bytes: what a checkpoint keeps for DropRows().
  int64_t size() const { return size_; }
  // Drops, of the lines from `offset` on, those whose step `drop` names; others and what is no row stay. Nothing
  // happens where no line begins at `offset`.
  absl::Status DropRows(int64_t offset, const std::function<bool(int64_t step)>& drop);
  // Begins an empty file; one that has rows becomes "metrics.1.csv", or the next number that is free.
  absl::Status SetAside();

 private:
  absl::Status Start();
  MetricsLog(std::string path, Format format, std::FILE* file) : path_(std::move(path)), format_(format), file_(file) {}

  const std::string path_;
  const Format format_;
  std::FILE* file_;
  int64_t size_ = 0;
};

}  // namespace athanor

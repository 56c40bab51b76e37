// Limits of a job's fields. The command line checks them with the place in the job file, the coordinator for everybody.
#pragma once

#include <cstddef>
#include <string_view>

namespace athanor {

inline constexpr size_t kMaxMapEntries = 64;         // labels, env
inline constexpr size_t kMaxKeyBytes = 128;          // of a label's or variable's name
inline constexpr size_t kMaxLabelBytes = 256;        // of a label's value
inline constexpr size_t kMaxEnvBytes = 64 * 1024;    // of a variable's value
inline constexpr size_t kMaxJsonBytes = 256 * 1024;  // task.options, runner
inline constexpr size_t kMaxReasonBytes = 1024;      // of a verb's reason
inline constexpr size_t kMaxTaskNameBytes = 128;

inline constexpr size_t kMaxNameBytes = 63;         // of a job, a tag
inline constexpr size_t kMaxWorkerNameBytes = 128;  // of a worker, a job's id

// What names of jobs, tags and workers look like.
inline constexpr char kNamePattern[] = "[a-z0-9]([-a-z0-9._]*[a-z0-9])?";
inline bool IsName(std::string_view text, size_t limit) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool good = !text.empty() && text.size() <= limit && alnum(text.front()) && alnum(text.back());
  for (const char c : text) good = good && (alnum(c) || c == '-' || c == '.' || c == '_');
  return good;
}

// A compiled train step computes as it was exported, on the CPU.
inline bool IsTrainStep(std::string_view task, std::string_view library) {
  return task == "train_step" && library.empty();
}
inline constexpr char kTrainStepPrecision[] =
    "with task train_step; allowed: leave it out, and choose with export_train_step.py --precision";
inline constexpr char kTrainStepDevice[] = "with task train_step; allowed: cpu";

}  // namespace athanor

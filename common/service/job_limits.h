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

// A compiled train step computes as it was exported, on the CPU.
inline bool IsTrainStep(std::string_view task, std::string_view library) {
  return task == "train_step" && library.empty();
}
inline constexpr char kTrainStepPrecision[] =
    "with task train_step; allowed: leave it out, and choose with export_train_step.py --precision";
inline constexpr char kTrainStepDevice[] = "with task train_step; allowed: cpu";

}  // namespace athanor

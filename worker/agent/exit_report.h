// Why a rank's process ended: from its exit code or signal, the file it left and the kernel's count of out-of-memory
// kills.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "athanor/v1/failure.pb.h"
#include "worker/agent/process_launcher.h"

namespace athanor::agent {

// Kills by the kernel for lack of memory in this process's memory group (cgroup v1 or v2); 0 where it cannot be read.
int64_t OutOfMemoryKills();

// Absent: exit code 0. `failure_file` is $ATHANOR_FAILURE_FILE; `log_path` gives the last lines.
std::optional<v1::FailureCause> ExplainExit(const ExitStatus& status, const std::string& failure_file,
                                            const std::string& log_path, int64_t out_of_memory_kills_before);

// The last `limit` bytes without control characters, from a line's start where there is one.
std::string LogTail(const std::string& log_path, size_t limit = 4096);

}  // namespace athanor::agent

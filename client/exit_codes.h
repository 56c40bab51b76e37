// Exit codes of `athanor`; docs/cli.md has the same list.
#pragma once

namespace athanor {

enum ExitCode : int {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kNotFound = 3,
  kConflict = 4,
  kUnreachable = 5,
  kJobFailed = 6,
  kJobCancelled = 7,
  kCheckpointMissing = 8,
  kDetached = 130,
  kReaderGone = 141,
};
inline constexpr char kExitCodesHelp[] =
    "Exit codes: 0 ok, 1 failure, 2 usage or invalid job file, 3 not found,\n4 conflict, 5 unreachable or too late, 6 "
    "job failed, 7 job cancelled,\n8 job succeeded but its last checkpoint was not written,\n130 detached by Ctrl-C "
    "(the "
    "job goes on), 141 the reader of the output went away.";

}  // namespace athanor

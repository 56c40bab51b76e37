// Why ranks, generations and jobs fail: THE table. Budgets, exit codes, messages, the wire's CauseKind, job files and
// docs/errors.md are made from it or checked against it (failure_cause_test.cc).
//
//   const CauseFacts& facts = FactsOf(CauseKind::kHang);     // {"hang", 15, 3, …}
//   std::optional<CauseKind> kind = CauseFromName("signal"); // the key of a budget
//   CauseOfExit(kExitData)->kind                             // CauseKind::kData
//
// Pure, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "athanor/contract/exit_codes.h"

namespace athanor {

// Numbers are those of athanor.v1.CauseKind and of records on disk.
enum class CauseKind : uint8_t {
  kUnspecified = 0,
  kUserCode = 1,
  kOutOfMemory = 2,
  kSignal = 3,
  kNodeLost = 4,
  kHang = 5,
  kPreempted = 6,
  kData = 7,
  kNanLoss = 8,
  kPeerLost = 9,
  kOurBug = 10,
  kLaunchFailed = 11,
  kInvalid = 12,
  kStorage = 13,
};
inline constexpr int kCauseKinds = 14;  // kUnspecified counts

inline constexpr int kNoExitCode = 0;      // no trainer says so itself
inline constexpr int32_t kUnlimited = -1;  // of budgets

struct CauseFacts {
  CauseKind kind;
  std::string_view name;
  int exit_code;
  int32_t budget;  // restarts of a job, when the job file says nothing
  bool retryable;  // false: a restart would end alike, whatever the budget
  std::string_view meaning;
  std::string_view advice;
};

inline constexpr std::array<CauseFacts, kCauseKinds - 1> kCauses = {{
    {CauseKind::kUserCode, "user_code", kExitUserCode, 1, true, "an exception out of the task",
     "the message and the last lines of the log are in `athanor job explain`"},
    {CauseKind::kOutOfMemory, "out_of_memory", kExitOutOfMemory, 1, true,
     "an allocation failed, or the kernel killed the rank for memory", "smaller batches, `accum_steps`, more memory"},
    {CauseKind::kSignal, "signal", kNoExitCode, 10, true, "killed by a signal that nobody of ours sent, or crashed",
     "after a crash (SIGSEGV, SIGABRT …) the detail names the innermost functions and the log has the stack; else "
     "`dmesg`, other tenants of the machine"},
    {CauseKind::kNodeLost, "node_lost", kNoExitCode, kUnlimited, true,
     "the agent's lease ended, it was restarted, or it neither runs the rank nor reports its end",
     "look at the machine; after a restored store: nothing"},
    {CauseKind::kHang, "hang", kExitHang, 3, true,
     "no rank advanced for `timeouts.hang`: no step, no batch evaluated, no byte read or written",
     "the rank that the others wait for is named; its stack is the event `StackDump`"},
    {CauseKind::kPreempted, "preempted", kExitPreempted, kUnlimited, true, "left as asked, after a save", "nothing"},
    {CauseKind::kData, "data", kExitData, 1, true, "a sample or a checkpoint cannot be read",
     "the file and the place are named"},
    {CauseKind::kNanLoss, "nan_loss", kExitNanLoss, 0, true, "`max_nonfinite_losses` in a row were not finite",
     "lower the learning rate, clip, look at the data"},
    {CauseKind::kPeerLost, "peer_lost", kExitPeerLost, 10, true,
     "a collective failed because another rank went away: a symptom", "look for the other rank's cause"},
    {CauseKind::kOurBug, "our_bug", kExitOurBug, 3, true, "an invariant of ours broke", "report it, with the log"},
    {CauseKind::kLaunchFailed, "launch_failed", kExitLaunchFailed, 3, true, "the process could not start or join",
     "the agent's log names the reason"},
    {CauseKind::kInvalid, "invalid", kExitInvalid, 0, false, "the configuration cannot work", "correct the job file"},
    {CauseKind::kStorage, "storage", kExitStorage, kUnlimited, true,
     "the checkpoint storage is not mounted, or another one is", "mount it: the job waits and goes on by itself"},
}};

constexpr bool CausesAreInOrder() {
  for (size_t i = 0; i < kCauses.size(); ++i) {
    if (static_cast<size_t>(kCauses[i].kind) != i + 1) return false;
  }
  return true;
}
static_assert(CausesAreInOrder());

// A cause that nobody told is one of ours.
constexpr const CauseFacts& FactsOf(CauseKind kind) {
  return kCauses[static_cast<size_t>(kind == CauseKind::kUnspecified ? CauseKind::kOurBug : kind) - 1];
}
const char* ToString(CauseKind kind);  // its name; "unspecified"
std::optional<CauseKind> CauseFromName(std::string_view name);
std::vector<std::string> CauseNames();  // in the order of the table

// What a trainer says with an exit code; null where none of the causes has it.
const CauseFacts* CauseOfExit(int exit_code);

}  // namespace athanor

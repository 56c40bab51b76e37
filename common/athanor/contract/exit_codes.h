// Exit codes of a trainer. One that ends with any other than 0 has written {"kind": "...", "detail": "..."} to
// $ATHANOR_FAILURE_FILE before (contract/rank_environment.h); failure_cause.h says what each stands for.
#pragma once

namespace athanor {

enum TrainerExit : int {
  kExitFinished = 0,
  kExitUserCode = 10,
  kExitOutOfMemory = 11,
  kExitData = 12,
  kExitNanLoss = 13,
  kExitPeerLost = 14,
  kExitHang = 15,
  kExitInvalid = 16,
  kExitPreempted = 17,
  kExitOurBug = 18,
  kExitStale = 19,         // told that its generation is over: costs no budget
  kExitDoNotRestart = 20,  // user code asks for the end: never restarted
  kExitLaunchFailed = 21,
  kExitStorage = 22,
};

}  // namespace athanor

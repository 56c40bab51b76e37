#include "athanor/contract/run_hooks.h"

namespace athanor {

const char* ToString(RunnerPhase phase) {
  switch (phase) {
    case RunnerPhase::kStarting:
      return "starting";
    case RunnerPhase::kLoading:
      return "loading";
    case RunnerPhase::kJoining:
      return "joining";
    case RunnerPhase::kRestoring:
      return "restoring";
    case RunnerPhase::kTraining:
      return "training";
    case RunnerPhase::kEvaluating:
      return "evaluating";
    case RunnerPhase::kSaving:
      return "saving";
    case RunnerPhase::kFinishing:
      return "finishing";
  }
  return "unknown";
}

}  // namespace athanor

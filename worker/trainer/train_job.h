// One rank's part of a job, from its environment to its result.
#pragma once

#include <string>

#include "worker/trainer/exit.h"
#include "worker/trainer/trainer_env.h"

namespace athanor {

struct RankEnd {
  TrainerExit code = kExitFinished;
  std::string detail;  // one line; empty when finished
};

// Task -> rendezvous -> process group -> runner -> Finish. Never throws. Some ends do not return: a stale generation, a
// lost agent and a hang are noticed on other threads and end the process there (exit.h).
RankEnd TrainJob(const TrainerEnv& env, const TrainerSpec& spec);

}  // namespace athanor

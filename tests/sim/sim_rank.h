// Ranks as the service sees them, and the lock-step training of a generation: joins, restores, steps, saves, leaves,
// finishes and fails. Ranks of one generation are coupled directly, as collectives couple real ones.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "athanor/v1/agent_service.pb.h"
#include "tests/sim/sim_world.h"

namespace athanor::sim {

class SimAgent;

// How a job of the simulated world behaves.
struct JobShape {
  core::Step total_steps = 20, save_every = 5;
  absl::Duration step_time = absl::Milliseconds(300);
  double fail_per_step = 0;   // some rank fails, while the world has faults
  bool always_fails = false;  // user code that throws at its first step
  bool strict = true;         // fencing
};

struct SimRank {
  core::RankRef id;
  SimAgent* agent = nullptr;
  int32_t world_size = 1;
  uint64_t process = 0;  // unique: callbacks of a dead process find nobody
  bool training = false, finishing = false;
  bool leave = false;  // asked to save and leave; its agent kills it when that takes too long
  bool hung = false;
  bool saving = false;  // a vote or manifest is on its way
  std::vector<v1::ResumePoint> resume;
  core::RankProgress progress;
};

// All generations that train.
class Training {
 public:
  explicit Training(World& world) : world_(world) {}
  std::map<core::JobId, JobShape> shapes;

  void Launch(SimRank& rank);
  // Ends the process: kill -9, a crash, or an orderly exit. No-op for a dead one.
  void Exit(const core::RankRef& id, uint64_t process, std::optional<core::FailureCause> cause, bool finished = false);
  SimRank* Find(const core::RankRef& id, uint64_t process);
  // The agent died: the process is gone and nobody reports it.
  void Vanish(const core::RankRef& id);
  // A random live rank; nullptr when there is none.
  SimRank* Pick();

 private:
  using GangId = std::pair<core::JobId, core::Generation>;
  struct Gang {
    std::map<core::Rank, SimRank*> ranks;
    int32_t world_size = 1;
    bool broken = false, ticking = false, leaving = false;
    core::Step step = 0;
    core::Step last_save = -1;
  };

  void Join(const core::RankRef& id, uint64_t process);
  void Joined(SimRank& rank, const v1::RankCallReply& reply);
  void Restore(const core::RankRef& id, uint64_t process);
  void Tick(const GangId& id);
  bool MaybeFail(Gang& gang);
  void Save(Gang& gang);
  void Shard(SimRank& rank, core::Step step);
  void ShardAnswered(const core::RankRef& id, uint64_t process, core::Step step, const v1::RankCallReply& reply);
  void Manifest(SimRank& rank, core::Step step);
  void Evaluation(SimRank& rank, core::Step step);
  void SaveOver(SimRank& rank);
  void MaybeLeave(Gang& gang);
  void Finish(SimRank& rank);
  void Break(const GangId& id);
  bool Refused(SimRank& rank, const v1::RankCallReply& reply);
  // A newer generation writes the job's files: this process ends.
  bool Fenced(SimRank& rank);

  World& world_;
  std::map<GangId, Gang> gangs_;
  std::map<core::RankRef, SimRank*> live_;
  uint64_t next_process_ = 1;
};

}  // namespace athanor::sim

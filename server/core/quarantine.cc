// Workers on which ranks cannot be started. A job whose launch failed is tried elsewhere; a worker that is shown to be
// at fault takes no new ranks for a while, each time for longer.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/core/duration_text.h"
#include "server/core/machine.h"

namespace athanor::core {
namespace {

constexpr size_t kUnprovenJobs = 3;  // as many jobs failed to start here, and none has started since
constexpr absl::Duration kQuarantineFirst = absl::Seconds(30), kQuarantineMost = absl::Minutes(30);

}  // namespace

// Workers of the launches that failed in a row, up to now.
std::set<WorkerId> Machine::LaunchFailedOn(const JobEntry& job) const {
  std::set<WorkerId> failed;
  const auto generations = state.generations.find(job.id);
  if (generations == state.generations.end()) return failed;
  for (auto it = generations->second.rbegin(); it != generations->second.rend(); ++it) {
    if (IsLive(it->second.state)) continue;
    const std::optional<FailureCause>& cause = it->second.cause;
    if (!cause.has_value() || cause->kind != CauseKind::kLaunchFailed) break;
    failed.insert(cause->worker);
  }
  return failed;
}

void Machine::CountLaunchFailure(JobEntry& job, const WorkerId& id) {
  const auto it = state.workers.find(id);
  if (it == state.workers.end()) return;
  WorkerEntry& worker = it->second;
  worker.launch_failures.insert(job.id);
  if (worker.launch_failures.size() >= kUnprovenJobs || worker.quarantines > 0) {
    Quarantine(worker, job, absl::StrCat("launches of ", worker.launch_failures.size(), " jobs failed here in a row"));
  }
}

// All ranks have joined: their workers can start ranks, and a job that failed to start elsewhere was not to blame.
void Machine::CountLaunches(JobEntry& job, const GenerationEntry& generation) {
  const std::set<WorkerId> failed = LaunchFailedOn(job);
  for (const RankEntry& rank : generation.ranks) {
    const auto it = state.workers.find(rank.placement.worker);
    if (it != state.workers.end()) ForgetLaunchFailures(it->second);
  }
  for (const WorkerId& id : failed) {
    const auto it = state.workers.find(id);
    if (it == state.workers.end() || !it->second.launch_failures.contains(job.id)) continue;
    Quarantine(it->second, job,
               absl::StrCat("the launch of ", job.id.str(), " failed here and succeeded on ",
                            generation.ranks[0].placement.worker.str()));
  }
}

void Machine::Quarantine(WorkerEntry& worker, JobEntry& job, const std::string& why) {
  if (worker.state != WorkerState::kReady && worker.state != WorkerState::kSuspect) return;
  const absl::Duration time =
      std::min(kQuarantineFirst * static_cast<double>(int64_t{1} << std::min(worker.quarantines, 16)), kQuarantineMost);
  ++worker.quarantines;
  worker.quarantined_until = now_ + time;
  MoveWorker(worker, WorkerTrigger::kLaunchesFail, absl::StrCat("quarantined for ", DurationText(time), ": ", why));
  timers_.Set(QuarantineTimer{worker.id}, worker.quarantined_until);
  AddEvent(job, "WorkerQuarantined", absl::StrCat(worker.id.str(), ": ", worker.reason));
  Emit(Note{.kind = Note::Kind::kQuarantine, .job = job.id, .worker = worker.id, .message = worker.reason});
}

// The next launch here is the probe: it clears the worker, or puts it back for twice as long.
void Machine::EndQuarantine(WorkerEntry& worker) {
  if (worker.state != WorkerState::kQuarantined) return;
  worker.launch_failures.clear();
  MoveWorker(worker, WorkerTrigger::kQuarantineOver, "tried again after its quarantine");
}

void Machine::ForgetLaunchFailures(WorkerEntry& worker) {
  worker.launch_failures.clear();
  if (worker.quarantines == 0) return;
  worker.quarantines = 0;
  worker.quarantined_until = absl::InfinitePast();
  // Ranks that were launched before the quarantine have joined since.
  if (worker.state == WorkerState::kQuarantined)
    MoveWorker(worker, WorkerTrigger::kQuarantineOver, "ranks have started here after all");
  timers_.Cancel(QuarantineTimer{worker.id});
  dirty_.Mark(worker.id);
}

}  // namespace athanor::core

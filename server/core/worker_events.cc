// Agents: registration, leases, drain.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/core/machine.h"

namespace athanor::core {

void Machine::MoveWorker(WorkerEntry& worker, WorkerTrigger trigger, const std::string& reason) {
  const std::optional<WorkerState> next = Next(kWorkerTable, worker.state, trigger);
  if (!next.has_value()) return;  // a worker's triggers are level-like: a heartbeat of a Ready worker changes nothing
  worker.state = *next;
  worker.reason = reason;
  MarkWorker(worker.id);
  if (worker.state == WorkerState::kReady) CapacityChanged();
}

void Machine::ArmLease(WorkerEntry& worker) {
  worker.lease_until = now_ + options.lease;
  const bool watched_half = worker.state == WorkerState::kReady;
  SetTimer(TimerKind::kWorker, worker.id.str(), watched_half ? now_ + options.lease / 2 : worker.lease_until);
}

void Machine::WorkerDeadline(WorkerEntry& worker) {
  if (worker.state == WorkerState::kLost) return;
  if (now_ < worker.lease_until) {
    MoveWorker(worker, WorkerTrigger::kHalfLease, "half a lease without a heartbeat");
    return SetTimer(TimerKind::kWorker, worker.id.str(), worker.lease_until);
  }
  MoveWorker(worker, WorkerTrigger::kLeaseOver,
             absl::StrCat("no heartbeat for ", absl::FormatDuration(now_ - worker.last_heartbeat)));
  // Its stream may still stand (the agent slept): end it, so that the agent registers anew when it wakes.
  if (worker.session != 0) Emit(RefuseWorker{worker.session, "the lease is over; register again"});
  worker.session = 0;
  Emit(Note{.kind = Note::Kind::kLeaseExpired, .worker = worker.id});
  LoseRanksOf(worker.id, CauseKind::kNodeLost, absl::StrCat("the lease of ", worker.id.str(), " is over"));
}

void Machine::LoseRanksOf(const WorkerId& worker, CauseKind kind, const std::string& detail) {
  const std::map<int32_t, RankRef> used = state.workers.at(worker).used;
  std::set<RankRef> lost;
  for (const auto& [slot, ref] : used) lost.insert(ref);
  for (const RankRef& ref : lost) {
    GenerationEntry* generation = nullptr;
    RankEntry* rank = CurrentRank(ref, worker, &generation);
    if (rank == nullptr) continue;
    if (rank->said_finish) {
      RankGone(*generation, *rank, std::nullopt);
    } else {
      RankGone(*generation, *rank, FailureCause{.kind = kind, .rank = ref.rank, .worker = worker, .detail = detail});
    }
  }
}

void Machine::ReleaseSlots(const GenerationEntry& generation, const RankEntry& rank) {
  auto it = state.workers.find(rank.placement.worker);
  if (it == state.workers.end()) return;
  WorkerEntry& worker = it->second;
  const RankRef ref{generation.job, generation.number, rank.placement.rank};
  for (int32_t slot : rank.placement.slots) {
    if (auto used = worker.used.find(slot); used != worker.used.end() && used->second == ref) worker.used.erase(used);
  }
  schedule_ = schedule_ || !queue_.empty();
  Emit(Touched{{}, worker.id});
  MaybeDrained(worker);
}

void Machine::MaybeDrained(WorkerEntry& worker) {
  if (worker.state == WorkerState::kDraining && worker.used.empty())
    MoveWorker(worker, WorkerTrigger::kEmpty, "drained");
}

void Machine::Handle(const WorkerRegistered& event) {
  auto it = state.workers.find(event.worker);
  if (it != state.workers.end()) {
    const WorkerEntry& known = it->second;
    if (known.session != 0 && known.instance != event.instance && known.state != WorkerState::kLost) {
      return Emit(RefuseWorker{event.session,
                               absl::StrCat("duplicate: another agent called ", event.worker.str(), " is connected")});
    }
    if (known.instance == event.instance && event.incarnation != 0 && event.incarnation < known.incarnation) {
      return Emit(RefuseWorker{event.session,
                               absl::StrCat("stale: incarnation ", event.incarnation, ", now ", known.incarnation)});
    }
  }
  const bool fresh = it == state.workers.end();
  WorkerEntry& worker = state.workers[event.worker];
  worker.id = event.worker;
  const bool same_process = !fresh && worker.instance == event.instance;
  const bool was_lost = !fresh && worker.state == WorkerState::kLost;
  if (!fresh && !same_process && !was_lost) {
    // A new process under this name: agents take their ranks with them.
    LoseRanksOf(worker.id, CauseKind::kNodeLost, absl::StrCat("the agent ", worker.id.str(), " was restarted"));
  }
  if (fresh || !same_process || was_lost) ++worker.incarnation;
  worker.instance = event.instance;
  worker.host = event.host;
  worker.device = event.device;
  worker.version = event.version;
  worker.labels = event.labels;
  worker.slots = event.slots;
  worker.session = event.session;
  worker.last_heartbeat = now_;
  if (fresh || !same_process) worker.registered_at = now_;
  if (fresh || was_lost || (!same_process && !worker.drain)) {
    worker.state = WorkerState::kReady;
    worker.reason = "registered";
    ForgetLaunchFailures(worker);  // a new process may find what the old one lacked
  } else {
    MoveWorker(worker, WorkerTrigger::kRegistered, "connected again");
  }
  MarkWorker(worker.id);
  AcceptWorker accept{event.session, worker.incarnation, {}};
  ReconcileRunning(worker, event, accept);
  if (worker.drain && worker.state == WorkerState::kReady) {
    MoveWorker(worker, WorkerTrigger::kDrain, "drain asked for");
    MaybeDrained(worker);
  }
  ArmLease(worker);
  CapacityChanged();
}

// Compares what the agent runs with what we believe runs there.
void Machine::ReconcileRunning(WorkerEntry& worker, const WorkerRegistered& event, AcceptWorker& accept) {
  std::set<RankRef> running;
  for (const RunningRank& one : event.running) {
    GenerationEntry* generation = nullptr;
    RankEntry* rank = CurrentRank(one.id, worker.id, &generation);
    if (rank == nullptr) {
      Emit(Note{.kind = Note::Kind::kFencedMessage,
                .job = one.id.job,
                .generation = one.id.generation,
                .rank = one.id.rank,
                .worker = worker.id,
                .label = "running"});
      continue;
    }
    running.insert(one.id);
    accept.keep.push_back(one.id);
    Handle(RankLaunched{event.session, worker.id, one.id,
                        0});  // its own report may be under way: the registration says it too
    if (one.progress.step >= rank->progress.step)
      ApplyProgress(*generation, *rank, {one.id, one.progress, absl::ZeroDuration()});
  }
  Emit(accept);
  const std::map<int32_t, RankRef> used = worker.used;
  std::set<RankRef> believed;
  for (const auto& [slot, ref] : used) believed.insert(ref);
  for (const RankRef& ref : believed) {
    GenerationEntry* generation = nullptr;
    RankEntry* rank = CurrentRank(ref, worker.id, &generation);
    if (rank == nullptr) continue;
    const bool stopping = generation->state == GenerationState::kStopping;
    if (running.contains(ref)) {
      if (stopping) {
        const bool save = generation->stop_for_suspend || generation->stop_for_preempt;
        const absl::Duration grace = save ? state.jobs.at(ref.job).spec.timeouts.stop_grace : absl::ZeroDuration();
        Emit(StopTrainer{worker.id, ref, save ? StopMode::kSaveAndLeave : StopMode::kKill, grace, generation->reason,
                         false});
      }
    } else if (rank->state == RankState::kLaunching && !stopping) {
      SendLaunch(*generation, *rank);  // the command was lost with the session; agents take a repetition for what it is
    } else if (rank->state == RankState::kLaunching) {
      RankGone(*generation, *rank,
               FailureCause{
                   .kind = CauseKind::kPreempted, .rank = ref.rank, .worker = worker.id, .detail = "never launched"});
    }
    // Else it has exited: the agent keeps the report until we have acknowledged it, and sends it right after this.
  }
  for (const auto& [job, step] : deleting_) Emit(DeleteFiles{worker.id, job, step, StorageOf(job, step)});
}

void Machine::Handle(const WorkerHeartbeat& event) {
  auto it = state.workers.find(event.worker);
  if (it == state.workers.end()) return;
  WorkerEntry& worker = it->second;
  if (worker.session != event.session || (event.incarnation != 0 && worker.incarnation != event.incarnation) ||
      worker.state == WorkerState::kLost) {
    return Emit(Note{.kind = Note::Kind::kFencedMessage, .worker = event.worker, .label = "heartbeat"});
  }
  worker.last_heartbeat = now_;
  if (worker.state == WorkerState::kSuspect) MoveWorker(worker, WorkerTrigger::kHeartbeat, "heard again");
  if (event.leaving && (worker.state == WorkerState::kReady || worker.state == WorkerState::kSuspect ||
                        worker.state == WorkerState::kQuarantined)) {
    MoveWorker(worker, WorkerTrigger::kDrain, "the agent is stopping");
    MaybeDrained(worker);
  }
  ArmLease(worker);
  for (const RankReport& report : event.reports) {
    GenerationEntry* generation = nullptr;
    RankEntry* rank = CurrentRank(report.id, event.worker, &generation);
    if (rank == nullptr) {
      Fence(0, report.id, event.worker, "progress");
      continue;
    }
    ApplyProgress(*generation, *rank, report);
  }
}

void Machine::Handle(const SessionLost& event) {
  auto it = state.workers.find(event.worker);
  if (it == state.workers.end() || it->second.session != event.session) return;
  it->second.session = 0;  // the lease decides, not the connection
  Emit(Touched{{}, event.worker});
}

void Machine::DrainJobsOf(const WorkerEntry& worker) {
  std::set<JobId> jobs;
  for (const auto& [slot, ref] : worker.used) jobs.insert(ref.job);
  for (const JobId& id : jobs) {
    JobEntry& job = state.jobs.at(id);
    GenerationEntry* generation = LiveGeneration(job);
    if (generation == nullptr || generation->state == GenerationState::kStopping) continue;
    const std::string why = absl::StrCat("moves away: ", worker.id.str(), " is drained");
    generation->stop_for_preempt = true;
    AddEvent(job, "Drained", why, generation->number);
    StopGeneration(*generation, StopMode::kSaveAndLeave, why);
  }
}

void Machine::Handle(const DrainWorker& event) {
  if (AnsweredBefore(event.call, event.request)) return;
  auto it = state.workers.find(event.worker);
  if (it == state.workers.end())
    return ReplyError(event.call, NoSuchWorker(state, event.worker));
  WorkerEntry& worker = it->second;
  worker.drain = true;
  MarkWorker(worker.id);
  MoveWorker(worker, WorkerTrigger::kDrain, "drain asked for");
  ArmLease(worker);
  DrainJobsOf(worker);
  MaybeDrained(worker);
  Remember(event.request, {}, "");
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .message = ToString(worker.state)});
}

void Machine::Handle(const UndrainWorker& event) {
  if (AnsweredBefore(event.call, event.request)) return;
  auto it = state.workers.find(event.worker);
  if (it == state.workers.end())
    return ReplyError(event.call, NoSuchWorker(state, event.worker));
  WorkerEntry& worker = it->second;
  worker.drain = false;
  MarkWorker(worker.id);
  ForgetLaunchFailures(worker);
  MoveWorker(worker, WorkerTrigger::kUndrain, "undrained");
  Remember(event.request, {}, "");
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .message = ToString(worker.state)});
}

}  // namespace athanor::core

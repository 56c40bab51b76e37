// Agents: registration, leases, drain.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/core/duration_text.h"
#include "server/core/machine.h"
#include "server/core/worker_name.h"

namespace athanor::core {

void Machine::MoveWorker(WorkerEntry& worker, WorkerTrigger trigger, const std::string& reason) {
  if (!Move(kWorkerTable, worker.state, trigger)) {
    return Emit(
        Note{.kind = Note::Kind::kInternalError, .worker = worker.id, .message = Impossible(worker.state, trigger)});
  }
  worker.reason = reason;
  dirty_.Mark(worker.id);
  if (worker.state == WorkerState::kReady) CapacityChanged();
}

void Machine::ArmLease(WorkerEntry& worker) {
  worker.lease_until = now_ + options.lease;
  const bool watched_half = worker.state == WorkerState::kReady;
  timers_.Set(WorkerTimer{worker.id}, watched_half ? now_ + options.lease / 2 : worker.lease_until);
}

bool Machine::InContact(const WorkerId& id) const {
  const auto it = state.workers.find(id);
  if (it == state.workers.end()) return false;
  const WorkerEntry& worker = it->second;
  return worker.session != 0 && worker.heard && worker.state != WorkerState::kSuspect;
}

void Machine::WorkerDeadline(WorkerEntry& worker) {
  if (worker.state == WorkerState::kLost) {
    if (now_ >= worker.lost_at + options.lost_worker_age) return ForgetWorker(worker.id);
    return timers_.Set(WorkerTimer{worker.id}, worker.lost_at + options.lost_worker_age);
  }
  if (now_ < worker.lease_until) {
    if (worker.state == WorkerState::kReady)
      MoveWorker(worker, WorkerTrigger::kHalfLease, "half a lease without a heartbeat");
    return timers_.Set(WorkerTimer{worker.id}, worker.lease_until);
  }
  MoveWorker(worker, WorkerTrigger::kLeaseOver,
             absl::StrCat("no heartbeat for ", DurationText(now_ - worker.last_heartbeat)));
  // Its stream may still stand (the agent slept, or nothing reaches us from it): end it, so that the agent registers
  // anew and knows that its ranks were replaced.
  if (worker.session != 0) Emit(RefuseWorker{worker.session, "the lease is over; register again", /*lease_over=*/true});
  worker.session = 0;
  worker.unaccounted.clear();
  worker.lost_at = now_;
  timers_.Set(WorkerTimer{worker.id}, now_ + options.lost_worker_age);
  Emit(Note{.kind = Note::Kind::kLeaseExpired, .worker = worker.id});
  LoseRanksOf(worker.id, absl::StrCat("the lease of ", worker.id.str(), " is over"));
}

// It may come back: then it registers as a new one.
void Machine::ForgetWorker(const WorkerId& id) {
  const WorkerId gone = id;  // the entry goes first
  state.workers.erase(gone);
  Emit(DeleteRecord{DeleteRecord::Kind::kWorker, {}, 0, gone.str()});
  Emit(Touched{{}, gone});
}

void Machine::LoseRank(const RankRef& ref, const WorkerId& worker, const std::string& detail) {
  GenerationEntry* generation = nullptr;
  RankEntry* rank = CurrentRank(ref, worker, &generation);
  if (rank == nullptr) return;
  // What was asked to end is no failure.
  const bool asked = generation->stop_for_suspend || generation->stop_for_cancel || generation->stop_for_preempt;
  const CauseKind kind = asked ? CauseKind::kPreempted : CauseKind::kNodeLost;
  std::optional<FailureCause> cause;
  if (!rank->said_finish) cause = FailureCause{.kind = kind, .rank = ref.rank, .worker = worker, .detail = detail};
  RankGone(*generation, *rank, std::move(cause));
}

void Machine::LoseRanksOf(const WorkerId& worker, const std::string& detail) {
  const std::map<int32_t, RankRef> used = state.workers.at(worker).used;
  std::set<RankRef> lost;
  for (const auto& [slot, ref] : used) lost.insert(ref);
  for (const RankRef& ref : lost) LoseRank(ref, worker, detail);
}

// An agent sends the exits that it still has to report between its registration and its first heartbeat: what is
// missing by then has gone without a report that we could keep.
void Machine::LoseUnaccounted(WorkerEntry& worker) {
  const std::set<RankRef> missing = std::exchange(worker.unaccounted, {});
  for (const RankRef& ref : missing) {
    LoseRank(ref, worker.id,
             absl::StrCat(worker.id.str(),
                          " neither runs it nor reports its end: an older copy of the coordinator's "
                          "store was restored, or the report was lost"));
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
  schedule_ = schedule_ || !queue_.ordered().empty();
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
    const auto& used = it->second.used;
    const bool strict = std::any_of(used.begin(), used.end(), [this](const auto& slot) {
      return state.jobs.at(slot.second.job).spec.fencing == Fencing::kStrict;
    });
    if (std::string why = WhyNameTaken(it->second, event, strict, now_); !why.empty())
      return Emit(RefuseWorker{event.session, std::move(why), /*lease_over=*/true});
    if (it->second.instance == event.instance && event.session < it->second.newest_session)
      return Emit(RefuseWorker{event.session, "stale: a newer stream of this agent has registered"});
  }
  TakeRegistration(state.workers[event.worker], event);
}

void Machine::TakeRegistration(WorkerEntry& worker, const WorkerRegistered& event) {
  const bool fresh = worker.id.empty();
  worker.id = event.worker;
  const bool same_process = !fresh && worker.instance == event.instance;
  const bool was_lost = !fresh && worker.state == WorkerState::kLost;
  if (!fresh && !same_process && !was_lost) {
    // A new process under this name: agents take their ranks with them.
    LoseRanksOf(worker.id, absl::StrCat("the agent ", worker.id.str(), " was restarted"));
  }
  if (worker.session != 0) Emit(RefuseWorker{worker.session, "a newer stream took its place"});
  worker.incarnation = std::max(worker.incarnation, event.incarnation);
  if (fresh || !same_process || was_lost) ++worker.incarnation;
  worker.instance = event.instance;
  worker.home = event.home;
  worker.host = event.host;
  worker.device = event.device;
  worker.version = event.version;
  worker.labels = event.labels;
  worker.slots = event.slots;
  worker.session = worker.newest_session = event.session;
  worker.leaving = false;
  if (fresh || !same_process) worker.registered_at = now_;
  if (fresh || was_lost || (!same_process && !worker.drain)) {
    MoveWorker(worker, WorkerTrigger::kRegistered, "registered, not yet heard");
    ForgetLaunchFailures(worker);  // a new process may find what the old one lacked
  }
  dirty_.Mark(worker.id);
  AcceptWorker accept{event.session, worker.id, worker.incarnation, {}};
  ReconcileRunning(worker, event, accept);
  if (worker.drain && (worker.state == WorkerState::kReady || worker.state == WorkerState::kSuspect)) {
    MoveWorker(worker, WorkerTrigger::kDrain, "drain asked for");
    MaybeDrained(worker);
  }
  // A registration proves that we hear the agent, not that it hears us: only a heartbeat, which it sends once it was
  // accepted, earns a further lease.
  if (fresh || was_lost || !same_process || worker.heard) {
    worker.last_heartbeat = now_;
    ArmLease(worker);
  }
  worker.heard = false;
  CapacityChanged();
}

// The agent is not told to keep it; the job's history says why.
void Machine::EndStranger(const RunningRank& stranger, const WorkerId& worker) {
  const RankRef& id = stranger.id;
  JobEntry* job = FindJob(id.job);
  std::string why = "no record of its job: the coordinator's data directory is another or an older one";
  if (job != nullptr) {
    const bool newer = id.generation > job->generation;
    SawGeneration(*job, id.generation);
    why = newer ? absl::StrCat("its generation ", id.generation,
                               " is unknown here: an older copy of the store was restored")
                : absl::StrCat("its generation ", id.generation, " was replaced");
    AddEvent(*job, "OldRankEnded", absl::StrCat(worker.str(), " still ran it: ", why), id.generation, id.rank);
  }
  Emit(Note{.kind = Note::Kind::kFencedMessage,
            .job = id.job,
            .generation = id.generation,
            .rank = id.rank,
            .worker = worker,
            .label = "running",
            .message = std::move(why)});
}

// Compares what the agent runs with what we believe runs there.
void Machine::ReconcileRunning(WorkerEntry& worker, const WorkerRegistered& event, AcceptWorker& accept) {
  std::set<RankRef> running;
  for (const RunningRank& one : event.running) {
    GenerationEntry* generation = nullptr;
    RankEntry* rank = CurrentRank(one.id, worker.id, &generation);
    if (rank == nullptr) {
      EndStranger(one, worker.id);
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
  worker.unaccounted.clear();
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
      SendLaunch(*generation,
                 {ref.rank});  // the command was lost with the session; agents take a repetition for what it is
    } else if (rank->state == RankState::kLaunching) {
      RankGone(*generation, *rank,
               FailureCause{
                   .kind = CauseKind::kPreempted, .rank = ref.rank, .worker = worker.id, .detail = "never launched"});
    } else {
      worker.unaccounted.insert(ref);
    }
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
  if (worker.state == WorkerState::kSuspect)
    MoveWorker(worker, WorkerTrigger::kHeartbeat, worker.heard ? "heard again" : "registered");
  worker.heard = true;
  worker.leaving = worker.leaving || event.leaving;
  LoseUnaccounted(worker);
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

void Machine::TellRefusedMessage(const WorkerEntry& worker, const std::string& refused) {
  std::set<std::pair<JobId, Generation>> generations;
  for (const auto& [slot, rank] : worker.used) generations.insert({rank.job, rank.generation});
  for (const auto& [id, generation] : generations) {
    if (JobEntry* job = FindJob(id))
      SumUp(*job, "AgentMessageRefused", absl::StrCat("agent ", worker.id.str(), ": ", refused), generation, -1);
  }
}

void Machine::Handle(const SessionLost& event) {
  auto it = state.workers.find(event.worker);
  if (it == state.workers.end() || it->second.session != event.session) return;
  it->second.session = 0;  // the lease decides, not the connection
  it->second.returns_by = now_ + options.lease / 4;
  if (!event.refused.empty()) TellRefusedMessage(it->second, event.refused);
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
  if (it == state.workers.end()) return ReplyError(event.call, NoSuchWorker(state, event.worker));
  WorkerEntry& worker = it->second;
  worker.drain = true;
  dirty_.Mark(worker.id);
  if (Next(kWorkerTable, worker.state, WorkerTrigger::kDrain).has_value())
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
  if (it == state.workers.end()) return ReplyError(event.call, NoSuchWorker(state, event.worker));
  WorkerEntry& worker = it->second;
  worker.drain = false;
  dirty_.Mark(worker.id);
  ForgetLaunchFailures(worker);
  if (Next(kWorkerTable, worker.state, WorkerTrigger::kUndrain).has_value())
    MoveWorker(worker, WorkerTrigger::kUndrain, "undrained");
  Remember(event.request, {}, "");
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .message = ToString(worker.state)});
}

}  // namespace athanor::core

// One membership of a job, from launch to the decision that follows its end. The first cause wins; a lost peer is only
// a symptom.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/core/duration_text.h"
#include "server/core/machine.h"

namespace athanor::core {
namespace {

bool IsSymptom(CauseKind kind) {
  return kind == CauseKind::kPeerLost;
}

bool HasTrained(const GenerationEntry& generation) {
  return generation.training_at != absl::InfinitePast();
}

std::string Describe(const FailureCause& cause) {
  std::string text = cause.rank >= 0 ? absl::StrCat("rank ", cause.rank, ": ") : "";
  absl::StrAppend(&text, ToString(cause.kind));
  if (cause.signal != 0) absl::StrAppend(&text, " ", cause.signal);
  if (!cause.worker.empty()) absl::StrAppend(&text, " on ", cause.worker.str());
  if (!cause.detail.empty()) absl::StrAppend(&text, ": ", cause.detail);
  return text;
}

}  // namespace

bool IsLive(GenerationState state) {
  return state <= GenerationState::kStopping;
}

bool NeedsGeneration(JobState state) {
  return state == JobState::kRunning || state == JobState::kSuspending || state == JobState::kCancelling;
}

// The entry of a rank of the job's live generation that sits on `worker`; nullptr for everything stale.
RankEntry* Machine::CurrentRank(const RankRef& id, const WorkerId& worker, GenerationEntry** generation) {
  GenerationEntry* found = FindGeneration(id.job, id.generation);
  if (found == nullptr || !IsLive(found->state)) return nullptr;
  if (id.rank < 0 || id.rank >= static_cast<Rank>(found->ranks.size())) return nullptr;
  RankEntry& rank = found->ranks[id.rank];
  if (rank.placement.worker != worker || rank.state == RankState::kExited) return nullptr;
  *generation = found;
  return &rank;
}

void Machine::Fence(CallId call, const RankRef& id, const WorkerId& worker, const char* what) {
  Emit(Note{.kind = Note::Kind::kFencedMessage,
            .job = id.job,
            .generation = id.generation,
            .rank = id.rank,
            .worker = worker,
            .label = what});
  if (call == 0) return;
  Emit(
      RankReply{.call = call,
                .status = absl::FailedPreconditionError(absl::StrCat("generation ", id.generation, " of ", id.job.str(),
                                                                     " is over or has no rank ", id.rank, " here"))});
}

void Machine::Handle(const RankLaunched& event) {
  GenerationEntry* generation = nullptr;
  RankEntry* rank = CurrentRank(event.id, event.worker, &generation);
  if (rank == nullptr) return Fence(0, event.id, event.worker, "launched");
  if (rank->state != RankState::kLaunching) return;
  rank->state = RankState::kStarted;
  dirty_.Mark(*generation);
  const bool all = std::all_of(generation->ranks.begin(), generation->ranks.end(),
                               [](const RankEntry& r) { return r.state != RankState::kLaunching; });
  if (all && generation->state == GenerationState::kLaunching)
    MoveGeneration(*generation, GenerationTrigger::kAllStarted);
}

void Machine::AnswerJoin(GenerationEntry& generation, RankEntry& rank, CallId call) {
  const JobEntry& job = state.jobs.at(generation.job);
  RankReply reply{.call = call, .status = absl::OkStatus()};
  reply.plan.world_size = static_cast<int32_t>(generation.ranks.size());
  reply.plan.store_endpoint = generation.ranks[0].endpoint;
  reply.plan.restarts = job.generation - 1;
  constexpr size_t kCandidates = 8;
  if (auto it = state.checkpoints.find(job.id); it != state.checkpoints.end()) {
    for (auto c = it->second.rbegin(); c != it->second.rend() && reply.plan.resume.size() < kCandidates; ++c) {
      if (c->second.state == CheckpointState::kCommitted)
        reply.plan.resume.push_back({job.id, c->first, false, c->second.storage});
    }
  }
  // A parent is where a job begins, not where it goes when its own checkpoints cannot be read.
  if (job.parent_step >= 0 && reply.plan.resume.empty())
    reply.plan.resume.push_back({job.parent, job.parent_step, true, StorageOf(job.parent, job.parent_step)});
  rank.join_call = 0;
  Emit(std::move(reply));
}

void Machine::Handle(const RankJoined& event) {
  GenerationEntry* generation = nullptr;
  RankEntry* rank = CurrentRank(event.id, event.worker, &generation);
  if (rank == nullptr || generation->state == GenerationState::kStopping)
    return Fence(event.call, event.id, event.worker, "join");
  if (rank->join_call != 0 && rank->join_call != event.call) {
    Emit(RankReply{.call = rank->join_call,
                   .status = absl::AbortedError("a newer Join of the same rank took its place")});
  }
  rank->join_call = event.call;
  if (!event.endpoint.empty()) rank->endpoint = event.endpoint;
  if (generation->state == GenerationState::kTraining)
    return AnswerJoin(*generation, *rank, event.call);  // its answer was lost
  rank->state = RankState::kJoined;
  dirty_.Mark(*generation);
  const bool all = std::all_of(generation->ranks.begin(), generation->ranks.end(),
                               [](const RankEntry& r) { return r.state == RankState::kJoined; });
  if (!all) return;
  generation->training_at = now_;
  generation->deadline = absl::InfiniteFuture();
  MoveGeneration(*generation, GenerationTrigger::kAllJoined);
  timers_.Cancel(GenerationTimer{generation->job, generation->number});
  JobEntry& job = state.jobs.at(generation->job);
  Account(job);
  CountLaunches(job, *generation);
  for (RankEntry& one : generation->ranks) {
    one.progress.updated_at = one.progress.advanced_at = now_;
    // A held call is gone when the coordinator restarted meanwhile: the agent sends it again and is answered then.
    if (one.join_call != 0) AnswerJoin(*generation, one, one.join_call);
  }
  timers_.Set(HangTimer{job.id, generation->number}, now_ + HangLimit(*generation, job));
  AddEvent(
      job, "GenerationTraining",
      absl::StrCat("all ", generation->ranks.size(), " ranks joined in ", DurationText(now_ - generation->created_at)),
      generation->number);
}

void Machine::MoveGeneration(GenerationEntry& generation, GenerationTrigger trigger) {
  if (!Move(kGenerationTable, generation.state, trigger)) {
    return AddEvent(state.jobs.at(generation.job), "InternalError", Impossible(generation.state, trigger),
                    generation.number);
  }
  dirty_.Mark(generation);
}

void Machine::StopGeneration(GenerationEntry& generation, StopMode mode, const std::string& reason,
                             const std::set<Rank>& dump_stacks) {
  JobEntry& job = state.jobs.at(generation.job);
  if (generation.state != GenerationState::kStopping) MoveGeneration(generation, GenerationTrigger::kStop);
  // Ranks that have not joined yet have nothing to save.
  const StopMode how = HasTrained(generation) ? mode : StopMode::kKill;
  const absl::Duration grace = how == StopMode::kSaveAndLeave ? job.spec.timeouts.stop_grace : absl::ZeroDuration();
  generation.reason = reason;
  // Past the grace the agent kills; the coordinator asks again in case that the first request was lost with its
  // session.
  generation.stop_limit = std::min(generation.stop_limit, now_ + grace + StopLimit());
  generation.deadline = std::min(now_ + grace + absl::Seconds(5), std::max(generation.stop_limit, now_));
  timers_.Set(GenerationTimer{generation.job, generation.number}, generation.deadline);
  for (RankEntry& rank : generation.ranks) {
    if (rank.state == RankState::kExited) continue;
    if (rank.join_call != 0) {
      Emit(RankReply{.call = rank.join_call, .status = absl::FailedPreconditionError("the generation is over")});
      rank.join_call = 0;
    }
    Emit(StopTrainer{rank.placement.worker,
                     {generation.job, generation.number, rank.placement.rank},
                     how,
                     grace,
                     reason,
                     dump_stacks.contains(rank.placement.rank)});
  }
  dirty_.Mark(generation);
}

void Machine::FailGeneration(GenerationEntry& generation, FailureCause cause, const std::set<Rank>& dump_stacks) {
  JobEntry& job = state.jobs.at(generation.job);
  const bool first = !generation.cause.has_value();
  if (!first && !(IsSymptom(generation.cause->kind) && !IsSymptom(cause.kind))) return;
  AddEvent(job, first ? "RankFailed" : "RealCauseFound", Describe(cause), generation.number, cause.rank);
  const bool hang = cause.kind == CauseKind::kHang;
  if (hang) Emit(Note{.kind = Note::Kind::kHang, .job = job.id, .generation = generation.number, .rank = cause.rank});
  generation.cause = std::move(cause);
  StopGeneration(generation, StopMode::kKill, absl::StrCat("stopped: ", Describe(*generation.cause)), dump_stacks);
}

// A restored copy of the store has forgotten the newest generations: their numbers are not used again.
void Machine::SawGeneration(JobEntry& job, Generation number) {
  constexpr Generation kMost = 1 << 30;  // nobody gets there
  if (number > job.newest_generation && number < kMost) job.newest_generation = number;
}

void Machine::Handle(const RankExited& event) {
  GenerationEntry* generation = nullptr;
  RankEntry* rank = CurrentRank(event.id, event.worker, &generation);
  if (JobEntry* job = FindJob(event.id.job)) SawGeneration(*job, event.newest_generation);
  if (rank == nullptr) return;  // late or repeated: the exit is known
  if (event.finished && HasTrained(*generation)) rank->said_finish = true;
  std::optional<FailureCause> cause = event.cause;
  if (cause.has_value()) {
    cause->rank = event.id.rank;
    cause->worker = event.worker;
  }
  RankGone(*generation, *rank, std::move(cause));
}

void Machine::RankGone(GenerationEntry& generation, RankEntry& rank, std::optional<FailureCause> cause) {
  rank.state = RankState::kExited;
  ReleaseSlots(generation, rank);
  dirty_.Mark(generation);
  const bool asked = generation.stop_for_suspend || generation.stop_for_cancel || generation.stop_for_preempt;
  if (!cause.has_value() && !rank.said_finish) {
    cause = FailureCause{.kind = CauseKind::kUserCode,
                         .rank = rank.placement.rank,
                         .worker = rank.placement.worker,
                         .detail = "exited with code 0 before the job was finished"};
  }
  if (cause.has_value() && cause->kind == CauseKind::kPreempted) {
    if (!asked && generation.state != GenerationState::kStopping) {
      // SIGTERM from outside: the ranks agreed to leave at one step; the job goes back to the queue.
      generation.stop_for_preempt = true;
      StopGeneration(generation, StopMode::kSaveAndLeave, Describe(*cause));
    }
  } else if (cause.has_value() && !generation.stop_for_cancel && !(asked && IsSymptom(cause->kind))) {
    // What an agent stopped because we asked comes back as kPreempted; everything else is a failure of its own.
    FailGeneration(generation, std::move(*cause));
  }
  MaybeEndGeneration(generation);
}

void Machine::MaybeEndGeneration(GenerationEntry& generation) {
  const bool gone = std::all_of(generation.ranks.begin(), generation.ranks.end(),
                                [](const RankEntry& r) { return r.state == RankState::kExited; });
  if (gone) EndGeneration(generation);
}

void Machine::EndGeneration(GenerationEntry& generation) {
  JobEntry& job = state.jobs.at(generation.job);
  Account(job);
  // What has never trained has not finished, whatever its ranks say.
  const bool finished = HasTrained(generation) && std::all_of(generation.ranks.begin(), generation.ranks.end(),
                                                              [](const RankEntry& r) { return r.said_finish; });
  job.last_progress = AggregateProgress(state, job);
  generation.ended_at = now_;
  generation.deadline = generation.stop_limit = absl::InfiniteFuture();
  timers_.Cancel(GenerationTimer{job.id, generation.number});
  timers_.Cancel(HangTimer{job.id, generation.number});
  live_jobs_.erase(job.id);
  SaySums(job);
  AbandonOpen(generation);
  schedule_ = true;
  if (generation.state != GenerationState::kStopping && !finished) MoveGeneration(generation, GenerationTrigger::kStop);
  if (finished) {
    MoveGeneration(generation, GenerationTrigger::kAllFinished);
    MoveJob(job, JobTrigger::kFinished, absl::StrCat("finished at step ", job.last_progress.step));
    const std::string warning = CheckpointWarning(state, job);
    if (!warning.empty()) absl::StrAppend(&job.reason, "; ", warning);
    FinishJob(job);
  } else if (generation.stop_for_cancel) {
    MoveGeneration(generation, GenerationTrigger::kGoneCancelled);
    MoveJob(job, JobTrigger::kStopped, job.reason);
    FinishJob(job);
  } else if (generation.stop_for_suspend) {
    MoveGeneration(generation, GenerationTrigger::kGonePreempted);
    const core::Step step = NewestCommitted(state, job.id);
    const std::string at = step >= 0                        ? absl::StrCat("suspended at ", CheckpointName(step))
                           : LostAllCheckpoints(state, job) ? "suspended; none of its checkpoints can be read"
                                                            : "suspended before its first checkpoint";
    MoveJob(job, JobTrigger::kStopped, at);
    AddEvent(job, "Suspended", job.reason, generation.number);
  } else if (generation.stop_for_preempt && !generation.cause.has_value() && !LostAllCheckpoints(state, job)) {
    MoveGeneration(generation, GenerationTrigger::kGonePreempted);
    ++job.restarts_by_cause[CauseKind::kPreempted];
    MoveJob(job, JobTrigger::kPreempted, absl::StrCat("waits again: ", generation.reason));
    AddEvent(job, "Requeued", job.reason, generation.number);
    Enqueue(job);
  } else {
    MoveGeneration(generation, GenerationTrigger::kGoneFailed);
    DecideAfterFailure(job, generation);
  }
}

void Machine::DecideAfterFailure(JobEntry& job, GenerationEntry& generation) {
  if (!generation.cause.has_value())
    generation.cause = FailureCause{.kind = CauseKind::kOurBug, .detail = "ended without a cause"};
  const FailureCause& cause = *generation.cause;
  job.last_cause = cause;
  Emit(Note{
      .kind = Note::Kind::kFailure, .job = job.id, .generation = generation.number, .label = ToString(cause.kind)});
  if (cause.kind == CauseKind::kLaunchFailed) CountLaunchFailure(job, cause.worker);
  const core::Step newest = NewestCommitted(state, job.id);
  const bool progress = newest > job.best_progress_step;
  job.best_progress_step = std::max(job.best_progress_step, newest);
  if (progress) job.generations_without_progress = 0;
  if (cause.kind != CauseKind::kStorage) ++job.generations_without_progress;
  const RestartHistory history{job.restarts_by_cause, job.generations_without_progress, job.seed};
  RestartDecision decision = DecideRestart(cause, history, job.spec.restart, now_);
  if (LostAllCheckpoints(state, job)) {
    decision = {.reason =
                    "gives up: none of its checkpoints can be read (their folders are kept as evidence), and it "
                    "does not begin again by itself; submit it anew to start over"};
  }
  AddEvent(job, "RestartDecided", decision.reason, generation.number, cause.rank);
  const std::string reason =
      absl::StrCat(Describe(cause), "; ", decision.reason, " (generation ", generation.number, ")");
  if (!decision.retry) {
    MoveJob(job, JobTrigger::kFailedFinal, reason);
    return FinishJob(job);
  }
  ++job.restarts_by_cause[cause.kind];
  Emit(Note{
      .kind = Note::Kind::kRestart, .job = job.id, .generation = generation.number, .label = ToString(cause.kind)});
  MoveJob(job, JobTrigger::kFailedRetry, reason);
  if (decision.retry_at <= now_) {
    MoveJob(job, JobTrigger::kRetryTimeReached, reason);
    return Enqueue(job);
  }
  job.retry_at = decision.retry_at;
  timers_.Set(RetryTimer{job.id}, job.retry_at);
}

void Machine::PruneGenerations(const JobEntry& job) {
  std::map<Generation, GenerationEntry>& generations = state.generations[job.id];
  while (static_cast<int32_t>(generations.size()) > options.max_generations_per_job &&
         !IsLive(generations.begin()->second.state)) {
    Emit(DeleteRecord{DeleteRecord::Kind::kGeneration, job.id, generations.begin()->first, {}});
    generations.erase(generations.begin());
  }
}

void Machine::Handle(const RankFinished& event) {
  GenerationEntry* generation = nullptr;
  RankEntry* rank = CurrentRank(event.id, event.worker, &generation);
  if (rank == nullptr) return Fence(event.call, event.id, event.worker, "finish");
  if (!HasTrained(*generation)) {
    return Emit(RankReply{.call = event.call,
                          .status = absl::InvalidArgumentError(absl::StrCat(
                              "finish: generation ", event.id.generation, " is ", ToString(generation->state),
                              "; its ranks have not all joined, so that nothing can be finished"))});
  }
  rank->said_finish = true;
  if (event.progress.step >= rank->progress.step)
    ApplyProgress(*generation, *rank, {event.id, event.progress, absl::ZeroDuration()});
  rank->progress.phase = "finishing";
  rank->state = RankState::kFinished;
  dirty_.Mark(*generation);
  Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
}

// What the ranks say that they did, which may be an older checkpoint than the one they were offered first.
void Machine::AddResumed(JobEntry& job, const GenerationEntry& generation, core::Step step) {
  AddEvent(job, "Resumed",
           absl::StrCat("resumed from step ", step, " of ", options.checkpoint_root,
                        options.checkpoint_root.empty() ? "" : "/", job.id.str(), "/", CheckpointName(step)),
           generation.number);
}

void Machine::ApplyProgress(GenerationEntry& generation, RankEntry& rank, const RankReport& report) {
  JobEntry& job = state.jobs.at(generation.job);
  const bool advanced = report.progress.step != rank.progress.step || report.progress.phase != rank.progress.phase ||
                        report.progress.phase_progress != rank.progress.phase_progress;
  const bool first_step = rank.placement.rank == 0 && advanced &&
                          rank.progress.step <= std::max<core::Step>(0, report.progress.resumed_from_step) &&
                          report.progress.step > std::max<core::Step>(0, report.progress.resumed_from_step);
  if (rank.placement.rank == 0) Account(job);
  const absl::Time heard = now_ - report.age;
  const absl::Time advanced_at = advanced ? heard : rank.progress.advanced_at;
  const int64_t old_failures = rank.progress.checkpoint_failures;
  const size_t old_events = rank.progress.events.size();
  rank.progress = report.progress;
  rank.progress.rank = rank.placement.rank;
  rank.progress.updated_at = heard;
  rank.progress.advanced_at = advanced_at;
  if (rank.progress.checkpoint_failures > old_failures) {
    SumUp(job, "CheckpointFailed", rank.progress.checkpoint_error, generation.number, rank.placement.rank);
    Emit(Note{.kind = Note::Kind::kCheckpointFailed,
              .job = job.id,
              .generation = generation.number,
              .rank = rank.placement.rank,
              .message = rank.progress.checkpoint_error});
  }
  for (size_t i = old_events; i < rank.progress.events.size(); ++i)
    AddEvent(job, "RunEvent", rank.progress.events[i], generation.number, rank.placement.rank);
  if (rank.progress.events.size() > old_events)
    dirty_.Mark(generation);  // a coordinator after this one adds none again
  if (first_step && report.progress.resumed_from_step >= 0)
    AddResumed(job, generation, report.progress.resumed_from_step);
  if (first_step && generation.number > 1) {
    const GenerationEntry* before = FindGeneration(job.id, generation.number - 1);
    const double seconds = before != nullptr ? absl::ToDoubleSeconds(now_ - before->ended_at) : 0;
    if (before != nullptr && before->state == GenerationState::kFailed) {
      AddEvent(job, "Recovered", absl::StrCat("first step after the restart: ", rank.progress.step), generation.number);
      Emit(Note{.kind = Note::Kind::kRecovered, .job = job.id, .generation = generation.number, .seconds = seconds});
    }
  }
  job.max_step_seen = std::max(job.max_step_seen, rank.progress.step);
  if (advanced && generation.state == GenerationState::kTraining) {
    // The limit shrinks after the first step and after a slow phase: look again no later than it asks for.
    timers_.SetAtMost(HangTimer{job.id, generation.number}, now_ + HangLimit(generation, job));
  }
  Emit(Touched{job.id, {}});
}

// A killed process can hang in the kernel, and an agent's answer can be lost for ever: a job does not wait for either.
// An agent starts nothing in a slot that a process of it still holds.
void Machine::GiveUpRanks(GenerationEntry& generation) {
  JobEntry& job = state.jobs.at(generation.job);
  for (RankEntry& rank : generation.ranks) {
    if (rank.state == RankState::kExited) continue;
    AddEvent(job, "RankGivenUp",
             absl::StrCat(rank.placement.worker.str(), " was told to end it and has not reported its end"),
             generation.number, rank.placement.rank);
    rank.state = RankState::kExited;
    ReleaseSlots(generation, rank);
  }
  dirty_.Mark(generation);
  EndGeneration(generation);
}

void Machine::GenerationDeadline(GenerationEntry& generation) {
  if (generation.state == GenerationState::kStopping) {
    if (now_ >= generation.stop_limit) return GiveUpRanks(generation);
    return StopGeneration(generation, StopMode::kKill, generation.reason);
  }
  if (generation.state == GenerationState::kTraining) return;
  std::vector<std::string> missing;
  const RankEntry* first = nullptr;
  for (const RankEntry& rank : generation.ranks) {
    if (rank.state == RankState::kJoined) continue;
    if (first == nullptr) first = &rank;
    if (missing.size() < 8) missing.push_back(absl::StrCat(rank.placement.rank, " on ", rank.placement.worker.str()));
  }
  if (first == nullptr) return;
  FailGeneration(generation, FailureCause{.kind = CauseKind::kLaunchFailed,
                                          .rank = first->placement.rank,
                                          .worker = first->placement.worker,
                                          .detail = absl::StrCat("did not join in time: rank ",
                                                                 absl::StrJoin(missing, ", rank "))});
  MaybeEndGeneration(generation);
}

}  // namespace athanor::core

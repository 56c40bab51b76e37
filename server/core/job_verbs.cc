// The verbs of clients. Each answers exactly once; each that changes something is remembered by its request key.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/core/machine.h"

namespace athanor::core {

bool Machine::AnsweredBefore(CallId call, const RequestKey& request) {
  const RequestEntry* found = requests_.Find(request.key);
  if (found == nullptr) return false;
  const RequestEntry& before = *found;
  if (before.digest != request.digest) {
    ReplyError(call, absl::AlreadyExistsError(absl::StrCat(
                         "request key '", request.key, "' was used before with other arguments; choose a new key")));
    return true;
  }
  Reply reply{.call = call, .status = absl::OkStatus(), .job = before.job, .created = false, .message = before.message};
  reply.step = before.step;
  const JobEntry* job = FindJob(before.job);
  reply.job_state = job != nullptr ? job->state : kNoJobState;
  Emit(std::move(reply));
  return true;
}

void Machine::Remember(const RequestKey& request, const JobId& job, const std::string& message, core::Step step) {
  if (request.key.empty()) return;
  RequestEntry entry{request.key, request.digest, job, message, now_, step};
  requests_.Remember(entry);
  Emit(PutRecord{std::move(entry)});
  ForgetOldRequests();
}

void Machine::ForgetOldRequests() {
  for (const std::string& key : requests_.Forget(now_)) Emit(DeleteRecord{DeleteRecord::Kind::kRequest, {}, 0, key});
  timers_.Set(RequestsTimer{}, requests_.NextToForget());
}

void Machine::ReplyError(CallId call, absl::Status status) {
  Emit(Reply{.call = call, .status = std::move(status)});
}

void Machine::ReplyDone(CallId call, const RequestKey& request, const JobEntry& job, const std::string& message) {
  Remember(request, job.id, message);
  Emit(Reply{.call = call, .status = absl::OkStatus(), .job = job.id, .message = message, .job_state = job.state});
}

JobEntry* Machine::ResolveForVerb(CallId call, const RequestKey& request, const std::string& reference) {
  if (AnsweredBefore(call, request)) return nullptr;
  absl::StatusOr<JobId> id = ResolveJob(state, reference, AmbiguousName::kTakeNewestLive);
  if (!id.ok()) {
    ReplyError(call, id.status());
    return nullptr;
  }
  return FindJob(*id);
}

absl::Status Machine::ResolveParent(const JobSpec& spec, JobId& parent, Step& step) const {
  if (spec.parent_job.empty()) return absl::OkStatus();
  absl::StatusOr<JobId> id = ResolveJob(state, spec.parent_job, AmbiguousName::kRefuse);
  if (!id.ok()) return absl::Status(id.status().code(), absl::StrCat("parent.job: ", id.status().message()));
  const std::string reference = spec.parent_checkpoint.empty() ? "latest" : spec.parent_checkpoint;
  absl::StatusOr<core::Step> found = ResolveCheckpoint(state, *id, reference);
  if (!found.ok())
    return absl::Status(found.status().code(), absl::StrCat("parent.checkpoint: ", found.status().message()));
  const CheckpointEntry& checkpoint = state.checkpoints.at(*id).at(*found);
  if (checkpoint.state != CheckpointState::kCommitted) {
    return absl::FailedPreconditionError(absl::StrCat("parent.checkpoint: ", CheckpointName(*found), " of ", id->str(),
                                                      " is ", ToString(checkpoint.state), ", not Committed"));
  }
  parent = *id;
  step = *found;
  return absl::OkStatus();
}

void Machine::ReplyDryRun(const SubmitJob& event) {
  JobId parent;
  core::Step step = -1;
  if (absl::Status status = ResolveParent(event.spec, parent, step); !status.ok())
    return ReplyError(event.call, status);
  const PlacementRequest request{event.spec.ranks, event.spec.slots_per_rank, event.spec.device};
  Reply reply{.call = event.call, .status = absl::OkStatus()};
  int32_t before = 0;
  for (const auto& [unreserved, priority, order, id] : queue_.ordered()) {
    const bool first = !unreserved || -priority >= event.spec.priority;
    if (first && state.jobs.at(id).spec.device == event.spec.device) ++before;
  }
  const PlacementResult now = Place(request, CollectFreeSlots(state));
  if (now.placed && before == 0) {
    reply.placement = now.placement;
    reply.message = absl::StrCat("would start now: ", now.reason);
  } else if (const PlacementResult ever = Place(request, CollectFreeSlots(state, /*ignore_used=*/true)); !ever.placed) {
    reply.queue_position = before + 1;
    reply.message = absl::StrCat("would wait for more workers: ", ever.reason, " even with every slot free");
  } else {
    reply.queue_position = before + 1;
    reply.message = before > 0 ? absl::StrCat("would wait behind ", before, " queued jobs")
                               : absl::StrCat("would wait: ", now.reason);
  }
  Emit(std::move(reply));
}

void Machine::Handle(const SubmitJob& event) {
  if (event.dry_run) return ReplyDryRun(event);
  if (AnsweredBefore(event.call, event.request)) return;
  if (queue_.Length() >= options.max_jobs_queued) {
    return ReplyError(event.call, absl::ResourceExhaustedError(
                                      absl::StrCat("the queue is full (", queue_.Length(), " jobs); try later")));
  }
  if (state.jobs.contains(event.id))
    return ReplyError(event.call, absl::InternalError("job id is taken; submit again"));
  JobEntry job;
  job.id = event.id;
  job.spec = event.spec;
  job.created_at = job.queued_at = job.goodput.accounted_until = now_;
  job.submit_order = state.next_submit_order++;
  job.seed = event.seed;
  if (absl::Status status = ResolveParent(event.spec, job.parent, job.parent_step); !status.ok())
    return ReplyError(event.call, status);
  if (!job.parent.empty()) children_[job.parent].insert(job.id);
  JobEntry& stored = state.jobs[event.id] = std::move(job);
  AddEvent(stored, "Submitted",
           absl::StrCat(stored.spec.ranks, " ranks on ", stored.spec.device, ", priority ", stored.spec.priority));
  Enqueue(stored);
  Emit(Note{.kind = Note::Kind::kJobSubmitted, .job = stored.id});
  Remember(event.request, stored.id, "");
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .job = stored.id, .created = true});
}

void Machine::Handle(const CancelJob& event) {
  JobEntry* job = ResolveForVerb(event.call, event.request, event.job);
  if (job == nullptr) return;
  const std::string why = absl::StrCat("cancelled", event.reason.empty() ? "" : ": ", event.reason);
  if (job->state == JobState::kCancelling || job->state == JobState::kCancelled) {
    return ReplyDone(event.call, event.request, *job, absl::StrCat("is ", ToString(job->state), " already"));
  }
  if (IsFinal(job->state)) {
    return ReplyError(event.call,
                      absl::FailedPreconditionError(absl::StrCat(job->id.str(), " is over: ", ToString(job->state))));
  }
  AddEvent(*job, "CancelRequested", why);
  Dequeue(*job);
  Account(*job);
  MoveJob(*job, JobTrigger::kCancel, why);
  if (GenerationEntry* generation = LiveGeneration(*job)) {
    generation->stop_for_cancel = true;
    StopGeneration(*generation, StopMode::kKill, why);
    MaybeEndGeneration(*generation);
  } else {
    FinishJob(*job);
  }
  ReplyDone(event.call, event.request, *job, "");
}

void Machine::Handle(const SuspendJob& event) {
  JobEntry* job = ResolveForVerb(event.call, event.request, event.job);
  if (job == nullptr) return;
  const std::string why = absl::StrCat("suspended", event.reason.empty() ? "" : ": ", event.reason);
  if (job->state == JobState::kSuspending || job->state == JobState::kSuspended) {
    return ReplyDone(event.call, event.request, *job, absl::StrCat("is ", ToString(job->state), " already"));
  }
  if (IsFinal(job->state) || job->state == JobState::kCancelling) {
    return ReplyError(event.call, absl::FailedPreconditionError(absl::StrCat(
                                      job->id.str(), " cannot be suspended: it is ", ToString(job->state))));
  }
  AddEvent(*job, "SuspendRequested", why);
  Dequeue(*job);
  Account(*job);
  MoveJob(*job, JobTrigger::kSuspend, why);
  if (GenerationEntry* generation = LiveGeneration(*job)) {
    generation->stop_for_suspend = true;
    StopGeneration(*generation, StopMode::kSaveAndLeave, why);
    MaybeEndGeneration(*generation);
  }
  ReplyDone(event.call, event.request, *job, "");
}

void Machine::Handle(const ResumeJob& event) {
  JobEntry* job = ResolveForVerb(event.call, event.request, event.job);
  if (job == nullptr) return;
  if (job->state == JobState::kQueued || job->state == JobState::kRunning) {
    return ReplyDone(event.call, event.request, *job, absl::StrCat("is ", ToString(job->state), " already"));
  }
  if (job->state != JobState::kSuspended) {
    return ReplyError(event.call,
                      absl::FailedPreconditionError(absl::StrCat(job->id.str(), " is ", ToString(job->state),
                                                                 "; only a Suspended job can be resumed")));
  }
  if (LostAllCheckpoints(state, *job) && !event.from_scratch) {
    return ReplyError(event.call, absl::FailedPreconditionError(absl::StrCat(
                                      "none of the checkpoints of ", job->id.str(),
                                      " can be read; to begin again without them resume it with --from-scratch")));
  }
  std::string why = event.reason.empty() ? "by request" : event.reason;
  if (event.change) {
    absl::StatusOr<JobSpec> changed = event.change(job->spec);
    if (!changed.ok()) return ReplyError(event.call, changed.status());
    job->spec = *std::move(changed);
    absl::StrAppend(&why, "; changed: ", event.changes);
  }
  AddEvent(*job, "ResumeRequested", why);
  if (event.from_scratch) SetAsideCheckpoints(*job);
  Account(*job);
  MoveJob(*job, JobTrigger::kResume, "resumed");
  Enqueue(*job);
  ReplyDone(event.call, event.request, *job, "");
}

void Machine::Handle(const DeleteJob& event) {
  JobEntry* job = ResolveForVerb(event.call, event.request, event.job);
  if (job == nullptr) return;
  if (!IsFinal(job->state)) {
    return ReplyError(event.call, absl::FailedPreconditionError(absl::StrCat(
                                      job->id.str(), " is ", ToString(job->state),
                                      "; only a job that is over can be deleted. Cancel it first: athanor job cancel ",
                                      job->id.str())));
  }
  if (auto children = children_.find(job->id); children != children_.end() && !children->second.empty()) {
    return ReplyError(event.call, absl::FailedPreconditionError(
                                      absl::StrCat(job->id.str(), " is needed: job ", children->second.begin()->str(),
                                                   ", which is not over, starts from one of its checkpoints")));
  }
  const JobId id = job->id;
  int64_t checkpoints = 0;
  if (auto it = state.checkpoints.find(id); it != state.checkpoints.end()) {
    for (const auto& [step, checkpoint] : it->second)
      checkpoints += checkpoint.state == CheckpointState::kCommitted || checkpoint.state == CheckpointState::kDamaged;
  }
  const std::string message = absl::StrCat("deleted; the files of its ", checkpoints,
                                           checkpoints == 1 ? " checkpoint" : " checkpoints", " stay");
  finished_.Remove(id, job->ended_at);
  DropJob(id);
  Remember(event.request, id, message);
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .job = id, .message = message, .job_state = kNoJobState});
}

void Machine::MoveJob(JobEntry& job, JobTrigger trigger, const std::string& reason) {
  // The invariants of tests see the unchanged state, production keeps serving.
  if (!Move(kJobTable, job.state, trigger)) return AddEvent(job, "InternalError", Impossible(job.state, trigger));
  job.reason = reason;
  if (job.state != JobState::kBackingOff && job.retry_at != absl::InfiniteFuture()) {
    job.retry_at = absl::InfiniteFuture();
    timers_.Cancel(RetryTimer{job.id});
  }
  dirty_.Mark(job.id);
}

// The job has just reached a final state.
void Machine::FinishJob(JobEntry& job) {
  job.ended_at = now_;
  AddEvent(job, ToString(job.state), job.reason);
  Emit(Note{.kind = Note::Kind::kJobEnded,
            .job = job.id,
            .label = ToString(job.state),
            .seconds = absl::ToDoubleSeconds(now_ - job.created_at)});
  if (!job.parent.empty()) {
    auto it = children_.find(job.parent);
    if (it != children_.end() && it->second.erase(job.id) > 0 && it->second.empty()) children_.erase(it);
    // What the parent kept for this child alone may go.
    if (const JobEntry* parent = FindJob(job.parent)) {
      if (IsFinal(parent->state)) CleanAbandoned(*parent, std::numeric_limits<core::Step>::max());
      ApplyRetention(*parent);
    }
  }
  CleanAbandoned(job, std::numeric_limits<core::Step>::max());
  ApplyRetention(job);
  Lighten(job);
  finished_.Add(job.id, now_, BytesOf(state, job));
  ForgetOldJobs();
}

// A job that is over is kept for long, and by the thousands: of what its ranks said last, the job has the sums.
void Machine::Lighten(JobEntry& job) {
  auto generations = state.generations.find(job.id);
  if (generations == state.generations.end()) return;
  for (auto& [number, generation] : generations->second) {
    for (RankEntry& rank : generation.ranks) {
      rank.progress.metrics.clear();
      rank.placement.slots.shrink_to_fit();
    }
    if (number != job.generation && generation.cause.has_value()) {
      generation.cause->log_tail.clear();
      generation.cause->log_tail.shrink_to_fit();
    }
  }
}

// By number, size and age; some at a time, so that nobody waits for a great many.
void Machine::ForgetOldJobs() {
  constexpr int kAtOnce = 200;
  for (int forgotten = 0; forgotten < kAtOnce; ++forgotten) {
    const std::optional<JobId> id = finished_.Due(now_);
    if (!id.has_value()) break;
    finished_.Remove(*id, state.jobs.at(*id).ended_at);
    DropJob(*id);
  }
  timers_.Set(FinishedJobsTimer{}, std::max(finished_.NextDue(now_), now_ + absl::Milliseconds(10)));
}

void Machine::DropJob(const JobId& id) {
  const JobEntry& job = state.jobs.at(id);
  for (const auto& [number, generation] : state.generations[id])
    Emit(DeleteRecord{DeleteRecord::Kind::kGeneration, id, number, {}});
  for (auto& [step, checkpoint] : state.checkpoints[id]) {
    // The record of a job that is forgotten goes; its files stay where the user finds them.
    deleting_.erase({id, step});
    Emit(DeleteRecord{DeleteRecord::Kind::kCheckpoint, id, step, {}});
  }
  const int64_t first = std::max<int64_t>(1, job.next_event - options.max_events_per_job);
  for (int64_t sequence = first; sequence < job.next_event; ++sequence) {
    Emit(DeleteRecord{DeleteRecord::Kind::kEvent, id, sequence, {}});
  }
  Emit(DeleteRecord{DeleteRecord::Kind::kJob, id, 0, {}});
  Emit(Touched{id, {}});
  state.generations.erase(id);
  state.checkpoints.erase(id);
  stall_seen_.erase(id);
  event_sums_.Forget(id);
  state.jobs.erase(id);
}

}  // namespace athanor::core

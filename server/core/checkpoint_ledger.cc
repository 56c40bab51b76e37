// Votes -> sealed -> committed, aliases, retention and deletion. Aliases and tags point at committed checkpoints only.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/checkpoint/policy/retention.h"
#include "server/core/machine.h"

namespace athanor::core {
namespace {

constexpr char kCannotBeDeleted[] = "cannot be deleted: ";

}  // namespace

CheckpointEntry* Machine::FindCheckpoint(const JobId& job, core::Step step) {
  auto checkpoints = state.checkpoints.find(job);
  if (checkpoints == state.checkpoints.end()) return nullptr;
  auto it = checkpoints->second.find(step);
  return it == checkpoints->second.end() ? nullptr : &it->second;
}

std::string Machine::StorageOf(const JobId& job, core::Step step) {
  const CheckpointEntry* entry = FindCheckpoint(job, step);
  return entry == nullptr ? "" : entry->storage;
}

void Machine::MoveCheckpoint(CheckpointEntry& checkpoint, CheckpointTrigger trigger) {
  if (!Move(kCheckpointTable, checkpoint.state, trigger)) {
    return AddEvent(state.jobs.at(checkpoint.job), "InternalError",
                    absl::StrCat(CheckpointName(checkpoint.step), ": ", Impossible(checkpoint.state, trigger)),
                    checkpoint.generation);
  }
  dirty_.Mark(checkpoint);
}

// A checkpoint that has no step could be stored, but not be read again.
bool Machine::RefuseStep(CallId call, core::Step step) {
  if (step >= 0) return false;
  if (call != 0) {
    Emit(RankReply{.call = call,
                   .status = absl::InvalidArgumentError(absl::StrCat("step: ", step, "; allowed: 0 and more"))});
  }
  return true;
}

void Machine::Handle(const ShardCommitted& event) {
  GenerationEntry* generation = nullptr;
  if (CurrentRank(event.id, event.worker, &generation) == nullptr)
    return Fence(event.call, event.id, event.worker, "shard");
  if (RefuseStep(event.call, event.step)) return;
  CheckpointEntry* entry = FindCheckpoint(event.id.job, event.step);
  if (entry != nullptr && entry->state == CheckpointState::kCommitted && entry->generation != event.id.generation) {
    return Emit(RankReply{.call = event.call,
                          .status = absl::AlreadyExistsError(absl::StrCat(
                              CheckpointName(event.step), " was committed by generation ", entry->generation))});
  }
  if (entry != nullptr && entry->state == CheckpointState::kDeleting) {
    return Emit(RankReply{.call = event.call,
                          .status = absl::AbortedError("its older files are being deleted; skip this one")});
  }
  const bool restart = entry == nullptr || entry->generation != event.id.generation;
  if (!restart && entry->state == CheckpointState::kAbandoned) {
    return Emit(RankReply{.call = event.call, .status = absl::AbortedError(absl::StrCat("given up: ", entry->note))});
  }
  if (restart) {
    CheckpointEntry fresh;
    fresh.job = event.id.job;
    fresh.step = event.step;
    fresh.generation = event.id.generation;
    fresh.shards_expected = static_cast<int32_t>(generation->ranks.size());
    fresh.created_at = now_;
    entry = &(state.checkpoints[event.id.job][event.step] = std::move(fresh));
  }
  entry->shards[event.id.rank] = event.shard;
  entry->shards[event.id.rank].rank = event.id.rank;
  dirty_.Mark(*entry);
  if (event.id.rank != 0) {
    Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
  } else {
    if (auto held = entry->shard_calls.find(0); held != entry->shard_calls.end() && held->second != event.call) {
      Emit(RankReply{.call = held->second,
                     .status = absl::AbortedError("a newer vote of the same rank took its place")});
    }
    entry->shard_calls[0] = event.call;
  }
  MaybeSeal(*entry);
}

void Machine::MaybeSeal(CheckpointEntry& checkpoint) {
  if (static_cast<int32_t>(checkpoint.shards.size()) < checkpoint.shards_expected) return;
  if (checkpoint.state == CheckpointState::kCollecting) MoveCheckpoint(checkpoint, CheckpointTrigger::kAllShards);
  auto held = checkpoint.shard_calls.find(0);
  if (held == checkpoint.shard_calls.end()) return;
  RankReply reply{.call = held->second, .status = absl::OkStatus()};
  for (const auto& [rank, shard] : checkpoint.shards) reply.shards.push_back(shard);
  checkpoint.shard_calls.clear();
  Emit(std::move(reply));
}

void Machine::Handle(const ManifestCommitted& event) {
  GenerationEntry* generation = nullptr;
  RankEntry* rank = CurrentRank(event.id, event.worker, &generation);
  if (rank == nullptr) return Fence(event.call, event.id, event.worker, "manifest");
  CheckpointEntry* entry = FindCheckpoint(event.id.job, event.step);
  // Repeated: its answer was lost.
  if (entry != nullptr && entry->state == CheckpointState::kCommitted)
    return Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
  if (entry == nullptr || entry->state != CheckpointState::kSealed || entry->generation != event.id.generation) {
    return Emit(RankReply{.call = event.call,
                          .status = absl::AbortedError(absl::StrCat(
                              CheckpointName(event.step),
                              entry == nullptr ? " has no votes" : absl::StrCat(" is ", ToString(entry->state))))});
  }
  JobEntry& job = state.jobs.at(event.id.job);
  MoveCheckpoint(*entry, CheckpointTrigger::kManifest);
  entry->bytes = event.bytes;
  entry->metrics = event.metrics;
  entry->is_best = event.is_best;
  entry->save_seconds = event.save_seconds;
  entry->storage = event.storage;
  entry->committed_at = now_;
  dirty_.Mark(*entry);
  if (event.is_best) job.aliases["best"] = event.step;
  PointAliases(job);
  job.last_progress = AggregateProgress(state, job);
  SumUp(job, "CheckpointCommitted",
        absl::StrCat(CheckpointName(event.step), event.is_best ? ", the best so far" : "", ", ", event.bytes, " bytes"),
        event.id.generation, -1);
  Emit(Note{.kind = Note::Kind::kCheckpointCommitted,
            .job = job.id,
            .generation = event.id.generation,
            .seconds = event.save_seconds,
            .bytes = event.bytes});
  Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
  CleanAbandoned(job, event.step);
  ApplyRetention(job);
  RetryDeletions(job);
}

void Machine::Handle(const EvaluationReported& event) {
  GenerationEntry* generation = nullptr;
  if (CurrentRank(event.id, event.worker, &generation) == nullptr)
    return Fence(event.call, event.id, event.worker, "evaluation");
  if (RefuseStep(event.call, event.step)) return;
  CheckpointEntry* entry = FindCheckpoint(event.id.job, event.step);
  if (entry == nullptr || entry->state != CheckpointState::kCommitted) {
    return Emit(RankReply{.call = event.call,
                          .status = absl::AbortedError(absl::StrCat(
                              CheckpointName(event.step), entry == nullptr ? " is unknown" : " is ",
                              entry == nullptr ? "" : ToString(entry->state), "; allowed: a committed step"))});
  }
  Measure(*entry, event);
  Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
}

// Repeated when its answer was lost: the same results change nothing.
void Machine::Measure(CheckpointEntry& checkpoint, const EvaluationReported& event) {
  if (event.metrics.empty() || event.metrics == checkpoint.metrics) return;
  checkpoint.metrics = event.metrics;
  checkpoint.is_best = event.is_best;
  dirty_.Mark(checkpoint);
  JobEntry& job = state.jobs.at(checkpoint.job);
  if (event.is_best) job.aliases["best"] = event.step;
  dirty_.Mark(job.id);
  SumUp(job, "CheckpointMeasured",
        absl::StrCat(CheckpointName(event.step), event.is_best ? ", the best so far" : ", not the best"),
        event.id.generation, -1);
  ApplyRetention(job);
}

void Machine::Handle(const CheckpointAbandoned& event) {
  GenerationEntry* generation = nullptr;
  if (CurrentRank(event.id, event.worker, &generation) == nullptr)
    return Fence(event.call, event.id, event.worker, "abandon");
  if (RefuseStep(event.call, event.step)) return;
  CheckpointEntry* entry = FindCheckpoint(event.id.job, event.step);
  const std::string why = absl::StrCat("rank ", event.id.rank, " gave up: ", event.reason);
  if (entry == nullptr) {
    // Its vote never came; remember the refusal so that the other ranks' votes are answered.
    CheckpointEntry fresh;
    fresh.job = event.id.job;
    fresh.step = event.step;
    fresh.generation = event.id.generation;
    fresh.shards_expected = static_cast<int32_t>(generation->ranks.size());
    fresh.created_at = now_;
    entry = &(state.checkpoints[event.id.job][event.step] = std::move(fresh));
  }
  if (entry->generation == event.id.generation) Abandon(*entry, CheckpointTrigger::kGivenUp, why);
  if (event.call != 0) Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
}

void Machine::Abandon(CheckpointEntry& checkpoint, CheckpointTrigger trigger, const std::string& why) {
  if (!Next(kCheckpointTable, checkpoint.state, trigger).has_value()) return;  // committed or given up before
  MoveCheckpoint(checkpoint, trigger);
  checkpoint.note = why;
  for (const auto& [rank, call] : checkpoint.shard_calls)
    Emit(RankReply{.call = call, .status = absl::AbortedError(absl::StrCat("given up: ", why))});
  checkpoint.shard_calls.clear();
  dirty_.Mark(checkpoint);
}

void Machine::AbandonOpen(const GenerationEntry& generation) {
  auto checkpoints = state.checkpoints.find(generation.job);
  if (checkpoints == state.checkpoints.end()) return;
  for (auto& [step, checkpoint] : checkpoints->second) {
    if (checkpoint.generation == generation.number) {
      Abandon(checkpoint, CheckpointTrigger::kGenerationOver,
              absl::StrCat("generation ", generation.number, " ended before its commit"));
    }
  }
}

void Machine::Handle(const CheckpointDamaged& event) {
  GenerationEntry* generation = nullptr;
  if (CurrentRank(event.id, event.worker, &generation) == nullptr)
    return Fence(event.call, event.id, event.worker, "damage");
  if (event.call != 0) Emit(RankReply{.call = event.call, .status = absl::OkStatus()});
  CheckpointEntry* entry = FindCheckpoint(event.id.job, event.step);
  if (entry == nullptr || entry->state != CheckpointState::kCommitted) return;
  JobEntry& job = state.jobs.at(event.id.job);
  MoveCheckpoint(*entry, CheckpointTrigger::kDamage);
  entry->note = event.reason;
  dirty_.Mark(*entry);
  PointAliases(job);
  generation->resume_step = NewestCommitted(state, job.id);
  dirty_.Mark(*generation);
  AddEvent(job, "CheckpointDamaged", absl::StrCat(CheckpointName(event.step), ": ", event.reason), event.id.generation,
           event.id.rank);
  Emit(Note{.kind = Note::Kind::kCheckpointDamaged,
            .job = job.id,
            .generation = event.id.generation,
            .rank = event.id.rank,
            .message = event.reason});
}

// `latest` is the newest committed one; whatever pointed at something else than a committed one lets go ("best": the
// best left).
void Machine::PointAliases(JobEntry& job) {
  auto committed = [&](core::Step step) {
    const CheckpointEntry* entry = FindCheckpoint(job.id, step);
    return entry != nullptr && entry->state == CheckpointState::kCommitted;
  };
  std::erase_if(job.aliases, [&](const auto& alias) { return !committed(alias.second); });
  const core::Step newest = NewestCommitted(state, job.id);
  if (newest >= 0) job.aliases["latest"] = newest;
  if (!job.aliases.contains("best")) {
    for (const auto& [step, entry] : state.checkpoints[job.id]) {
      if (entry.state == CheckpointState::kCommitted && entry.is_best) job.aliases["best"] = step;
    }
  }
  dirty_.Mark(job.id);
}

// Steps that nothing may delete: aliases and tags, the two newest, what a live generation started from, parents of
// children.
std::set<Step> Machine::Roots(const JobEntry& job) const {
  std::set<core::Step> roots;
  for (const auto& [name, step] : job.aliases) roots.insert(step);
  if (auto it = state.checkpoints.find(job.id); it != state.checkpoints.end()) {
    int newest = 0;
    for (auto c = it->second.rbegin(); c != it->second.rend() && newest < 2; ++c) {
      if (c->second.state != CheckpointState::kCommitted) continue;
      // The second newest is kept only while the job may still need to fall back on it.
      if (newest == 0 || !IsFinal(job.state)) roots.insert(c->first);
      ++newest;
    }
  }
  if (const GenerationEntry* generation = CurrentGeneration(state, job);
      generation != nullptr && IsLive(generation->state)) {
    if (generation->resume_step >= 0) roots.insert(generation->resume_step);
  }
  if (auto it = children_.find(job.id); it != children_.end()) {
    for (const JobId& child : it->second) roots.insert(state.jobs.at(child).parent_step);
  }
  return roots;
}

std::string Machine::WhyNeeded(const JobEntry& job, core::Step step) const {
  for (const auto& [name, target] : job.aliases) {
    if (target == step) return absl::StrCat("'", name, "' points at it");
  }
  if (auto it = children_.find(job.id); it != children_.end()) {
    for (const JobId& child : it->second) {
      if (state.jobs.at(child).parent_step == step) return absl::StrCat("job ", child.str(), " starts from it");
    }
  }
  return "a restart of the running job may need it";
}

// What cannot be read now may be whole: a job that fails to read loses no files. Damaged folders are kept as evidence
// until somebody deletes them.
void Machine::ApplyRetention(const JobEntry& job) {
  if (job.spec.keep_latest_k <= 0 || FailsToRead(job)) return;
  auto it = state.checkpoints.find(job.id);
  if (it == state.checkpoints.end()) return;
  const std::set<core::Step> roots = Roots(job);
  std::vector<RetainedCheckpoint> committed;
  for (const auto& [step, checkpoint] : it->second) {
    if (checkpoint.state == CheckpointState::kCommitted)
      committed.push_back({.step = step, .pinned = roots.contains(step)});
  }
  for (const core::Step step : ChooseRetention(std::move(committed), job.spec.keep_latest_k).remove)
    Retire(it->second.at(step), absl::StrCat("older than the last ", job.spec.keep_latest_k));
}

// A given-up step may be written again by the next generation, so its files stay until a later step is committed.
void Machine::CleanAbandoned(const JobEntry& job, core::Step below) {
  if (FailsToRead(job)) return;
  auto it = state.checkpoints.find(job.id);
  if (it == state.checkpoints.end()) return;
  const std::set<core::Step> roots = Roots(job);  // a child may start from what lay here before
  for (auto& [step, checkpoint] : it->second) {
    if (step < below && checkpoint.state == CheckpointState::kAbandoned && !roots.contains(step))
      Retire(checkpoint, checkpoint.note);
  }
}

void Machine::Retire(CheckpointEntry& checkpoint, const std::string& why) {
  MoveCheckpoint(checkpoint, CheckpointTrigger::kRetire);
  checkpoint.note = why;
  deleting_.insert({checkpoint.job, checkpoint.step});
  dirty_.Mark(checkpoint);
  SendDelete(checkpoint);
}

void Machine::SendDelete(const CheckpointEntry& checkpoint) {
  const JobEntry& job = state.jobs.at(checkpoint.job);
  // A worker that runs the job is nearest to its files; else any that is connected.
  if (const GenerationEntry* generation = CurrentGeneration(state, job)) {
    for (const RankEntry& rank : generation->ranks) {
      auto worker = state.workers.find(rank.placement.worker);
      if (worker != state.workers.end() && worker->second.session != 0) {
        return Emit(DeleteFiles{rank.placement.worker, checkpoint.job, checkpoint.step, checkpoint.storage});
      }
    }
  }
  for (const auto& [id, worker] : state.workers) {
    if (worker.session != 0) return Emit(DeleteFiles{id, checkpoint.job, checkpoint.step, checkpoint.storage});
  }
}

// What could not be deleted may be by now: the storage is there, something was just committed to it.
void Machine::RetryDeletions(const JobEntry& job) {
  for (auto it = deleting_.lower_bound({job.id, 0}); it != deleting_.end() && it->first == job.id; ++it) {
    CheckpointEntry* entry = FindCheckpoint(it->first, it->second);
    if (entry == nullptr || !absl::StartsWith(entry->note, kCannotBeDeleted)) continue;
    entry->note = "deleted again";
    dirty_.Mark(*entry);
    SendDelete(*entry);
  }
}

void Machine::Handle(const FilesDeleted& event) {
  CheckpointEntry* entry = FindCheckpoint(event.job, event.step);
  if (entry == nullptr || entry->state != CheckpointState::kDeleting) return;
  if (!event.error.empty()) {
    entry->note = absl::StrCat(kCannotBeDeleted, event.error);
    return dirty_.Mark(*entry);
  }
  deleting_.erase({event.job, event.step});
  state.checkpoints[event.job].erase(event.step);
  Emit(DeleteRecord{DeleteRecord::Kind::kCheckpoint, event.job, event.step, {}});
  Emit(Touched{event.job, {}});
  Emit(Note{.kind = Note::Kind::kCheckpointDeleted, .job = event.job});
}

void Machine::Handle(const TagCheckpoint& event) {
  JobEntry* job = ResolveForVerb(event.call, event.request, event.job);
  if (job == nullptr) return;
  absl::StatusOr<core::Step> step = ResolveCheckpoint(state, job->id, event.checkpoint);
  if (!step.ok()) return ReplyError(event.call, step.status());
  if (absl::Status status = CheckTag(event.tag); !status.ok()) return ReplyError(event.call, status);
  const CheckpointEntry& entry = *FindCheckpoint(job->id, *step);
  if (entry.state != CheckpointState::kCommitted) {
    return ReplyError(event.call, absl::FailedPreconditionError(absl::StrCat(
                                      CheckpointName(*step), " is ", ToString(entry.state), ", not Committed")));
  }
  const auto current = job->aliases.find(event.tag);
  const core::Step now_at = current == job->aliases.end() ? -1 : current->second;
  if (event.expected.has_value() && *event.expected != now_at) {
    return ReplyError(
        event.call, absl::AbortedError(absl::StrCat(
                        "'", event.tag, "' points at ", now_at < 0 ? "nothing" : CheckpointName(now_at), ", expected ",
                        *event.expected < 0 ? "nothing" : CheckpointName(*event.expected))));
  }
  constexpr size_t kMaxTags = 256;
  if (now_at < 0 && job->aliases.size() >= kMaxTags) {
    return ReplyError(event.call, absl::ResourceExhaustedError(absl::StrCat("a job has at most ", kMaxTags, " tags")));
  }
  job->aliases[event.tag] = *step;
  AddEvent(*job, "Tagged", absl::StrCat("'", event.tag, "' -> ", CheckpointName(*step)));
  Remember(event.request, job->id, CheckpointName(*step), *step);
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .job = job->id, .job_state = job->state, .step = *step});
}

void Machine::Handle(const UntagCheckpoint& event) {
  JobEntry* job = ResolveForVerb(event.call, event.request, event.job);
  if (job == nullptr) return;
  if (event.tag == "latest" || event.tag == "best") {
    return ReplyError(event.call,
                      absl::InvalidArgumentError(absl::StrCat("'", event.tag, "' is moved by the service only")));
  }
  const auto current = job->aliases.find(event.tag);
  if (current == job->aliases.end())
    return ReplyError(event.call, absl::NotFoundError(absl::StrCat(job->id.str(), " has no tag '", event.tag, "'")));
  const core::Step step = current->second;
  if (event.expected.has_value() && *event.expected != step) {
    return ReplyError(event.call,
                      absl::AbortedError(absl::StrCat("'", event.tag, "' points at ", CheckpointName(step))));
  }
  job->aliases.erase(current);
  AddEvent(*job, "Untagged", absl::StrCat("'", event.tag, "' no longer points at ", CheckpointName(step)));
  Remember(event.request, job->id, CheckpointName(step), step);
  Emit(Reply{.call = event.call, .status = absl::OkStatus(), .job = job->id, .job_state = job->state, .step = step});
  ApplyRetention(*job);
}

void Machine::Handle(const DeleteCheckpoint& event) {
  JobEntry* job = ResolveForVerb(event.call, event.dry_run ? RequestKey{} : event.request, event.job);
  if (job == nullptr) return;
  absl::StatusOr<core::Step> step = ResolveCheckpoint(state, job->id, event.checkpoint);
  if (!step.ok()) return ReplyError(event.call, step.status());
  CheckpointEntry& entry = *FindCheckpoint(job->id, *step);
  const bool deletable = entry.state == CheckpointState::kCommitted || entry.state == CheckpointState::kDamaged;
  if (!deletable) {
    return ReplyError(
        event.call, absl::FailedPreconditionError(absl::StrCat(CheckpointName(*step), " is ", ToString(entry.state))));
  }
  if (Roots(*job).contains(*step)) {
    return ReplyError(event.call, absl::FailedPreconditionError(
                                      absl::StrCat(CheckpointName(*step), " is kept: ", WhyNeeded(*job, *step))));
  }
  const std::string what =
      absl::StrCat(CheckpointName(*step), ", ", entry.bytes, " bytes in ", entry.shards.size(), " shards");
  Reply reply{.call = event.call,
              .status = absl::OkStatus(),
              .job = job->id,
              .message = absl::StrCat(event.dry_run ? "would delete " : "deletes ", what),
              .job_state = job->state,
              .step = *step};
  if (!event.dry_run) {
    AddEvent(*job, "DeleteRequested", what);
    Retire(entry, "deleted by request");
    Remember(event.request, job->id, reply.message, *step);
  }
  Emit(std::move(reply));
}

}  // namespace athanor::core

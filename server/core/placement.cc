// The queue, the scheduling pass and the start of a generation.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/core/machine.h"

namespace athanor::core {
namespace {

PlacementRequest RequestOf(const JobEntry& job) {
  return {job.spec.ranks, job.spec.slots_per_rank, job.spec.device};
}

}  // namespace

void Machine::Enqueue(JobEntry& job) {
  queue_.insert({-job.spec.priority, job.submit_order, job.id});
  job.queued_at = now_;
  schedule_ = true;
  MarkJob(job.id);
}

void Machine::Dequeue(const JobEntry& job) {
  queue_.erase({-job.spec.priority, job.submit_order, job.id});
}

int32_t Machine::QueuePosition(const JobId& id) const {
  auto job = state.jobs.find(id);
  if (job == state.jobs.end()) return 0;
  auto it = queue_.find({-job->second.spec.priority, job->second.submit_order, id});
  return it == queue_.end() ? 0 : static_cast<int32_t>(std::distance(queue_.begin(), it)) + 1;
}

void Machine::SetQueueReason(JobEntry& job, const std::string& reason) {
  if (job.reason == reason) return;
  job.reason = reason;
  AddEvent(job, "Waiting", reason);
}

void Machine::SchedulePass() {
  std::vector<FreeSlots> free = CollectFreeSlots(state);
  std::map<std::string, JobId> blocked;  // device kind -> the job at the head that waits
  const std::vector<QueueKey> order(queue_.begin(), queue_.end());
  for (const auto& [priority, submit_order, id] : order) {
    JobEntry& job = state.jobs.at(id);
    if (auto it = blocked.find(job.spec.device); it != blocked.end()) {
      // Only the nearest few are told each time; the others hear it when they come near.
      if (job.reason.empty()) SetQueueReason(job, absl::StrCat("waits behind ", it->second.str()));
      continue;
    }
    if (TryPlace(job, free)) continue;
    const PlacementResult ever = Place(RequestOf(job), CollectFreeSlots(state, /*ignore_used=*/true));
    if (!ever.placed) {
      SetQueueReason(job, absl::StrCat("waits for more workers: ", ever.reason, " even with every slot free"));
      continue;
    }
    const bool preempting = PreemptFor(job, free);
    const PlacementResult now = Place(RequestOf(job), free);
    SetQueueReason(job, preempting ? "next: preempting jobs of lower priority" : absl::StrCat("next: ", now.reason));
    blocked[job.spec.device] = id;
  }
}

bool Machine::TryPlace(JobEntry& job, std::vector<FreeSlots>& free) {
  const PlacementResult place = Place(RequestOf(job), free);
  if (!place.placed) return false;
  for (const Placement& seat : place.placement) {
    for (FreeSlots& worker : free) {
      if (worker.worker != seat.worker) continue;
      for (int32_t slot : seat.slots) worker.slots.erase(std::find(worker.slots.begin(), worker.slots.end(), slot));
    }
  }
  StartGeneration(job, place);
  return true;
}

// Stops just enough preemptible jobs of lower priority for `head` to fit, the lowest and youngest first. True while
// such stops are under way.
bool Machine::PreemptFor(const JobEntry& head, const std::vector<FreeSlots>& free) {
  std::map<WorkerId, FreeSlots> coming;
  for (const FreeSlots& worker : free) coming[worker.worker] = worker;
  auto add_slots_of = [&](const GenerationEntry& generation) {
    for (const RankEntry& rank : generation.ranks) {
      auto worker = state.workers.find(rank.placement.worker);
      if (rank.state == RankState::kExited || worker == state.workers.end() ||
          worker->second.state != WorkerState::kReady)
        continue;
      FreeSlots& slots = coming[rank.placement.worker];
      slots.worker = rank.placement.worker;
      slots.device = worker->second.device;
      slots.slots.insert(slots.slots.end(), rank.placement.slots.begin(), rank.placement.slots.end());
    }
  };
  auto fits = [&] {
    std::vector<FreeSlots> all;
    for (const auto& [id, slots] : coming) all.push_back(slots);
    return Place(RequestOf(head), all).placed;
  };
  std::vector<std::tuple<int32_t, int64_t, JobId>> victims;  // priority, -submit order
  bool stopping = false;
  for (const JobId& id : live_jobs_) {
    const JobEntry& job = state.jobs.at(id);
    GenerationEntry* generation = LiveGeneration(job);
    if (generation == nullptr || job.spec.device != head.spec.device) continue;
    if (generation->state == GenerationState::kStopping) {
      add_slots_of(*generation);
      stopping = true;
    } else if (job.spec.preemptible && job.spec.priority < head.spec.priority && job.state == JobState::kRunning) {
      victims.push_back({job.spec.priority, -static_cast<int64_t>(job.submit_order), id});
    }
  }
  if (stopping && fits()) return true;
  std::sort(victims.begin(), victims.end());
  std::vector<JobId> chosen;
  for (const auto& [priority, order, id] : victims) {
    add_slots_of(*LiveGeneration(state.jobs.at(id)));
    chosen.push_back(id);
    if (fits()) break;
  }
  if (chosen.empty() || !fits()) return false;
  for (const JobId& id : chosen) {
    JobEntry& job = state.jobs.at(id);
    GenerationEntry& generation = *LiveGeneration(job);
    const std::string why = absl::StrCat("preempted for ", head.id.str(), " of priority ", head.spec.priority);
    generation.stop_for_preempt = true;
    AddEvent(job, "Preempted", why, generation.number);
    Emit(Note{.kind = Note::Kind::kPreemption, .job = id});
    StopGeneration(generation, StopMode::kSaveAndLeave, why);
  }
  return true;
}

Step Machine::ResumeStep(const JobEntry& job) const {
  auto it = state.checkpoints.find(job.id);
  if (it == state.checkpoints.end()) return -1;
  for (auto checkpoint = it->second.rbegin(); checkpoint != it->second.rend(); ++checkpoint) {
    if (checkpoint->second.state == CheckpointState::kCommitted) return checkpoint->first;
  }
  return -1;
}

void Machine::StartGeneration(JobEntry& job, const PlacementResult& place) {
  Account(job);
  Dequeue(job);
  const double waited = absl::ToDoubleSeconds(now_ - job.queued_at);
  GenerationEntry generation;
  generation.job = job.id;
  generation.number = ++job.generation;
  generation.created_at = now_;
  generation.deadline = now_ + job.spec.timeouts.join;
  generation.reason = place.reason;
  generation.resume_step = ResumeStep(job);
  for (const Placement& seat : place.placement) {
    RankEntry rank;
    rank.placement = seat;
    rank.progress.rank = seat.rank;
    rank.progress.updated_at = rank.progress.advanced_at = now_;
    for (int32_t slot : seat.slots) state.workers.at(seat.worker).used[slot] = {job.id, generation.number, seat.rank};
    Emit(Touched{{}, seat.worker});
    generation.ranks.push_back(std::move(rank));
  }
  if (job.started_at == absl::InfinitePast()) job.started_at = now_;
  const std::string from = generation.resume_step >= 0 ? CheckpointName(generation.resume_step) : "scratch";
  MoveJob(job, JobTrigger::kPlaced, absl::StrCat("generation ", generation.number, ": ", place.reason));
  AddEvent(job, "Placed", absl::StrCat(place.reason, "; starts from ", from), generation.number);
  GenerationEntry& stored = state.generations[job.id][generation.number] = std::move(generation);
  live_jobs_.insert(job.id);
  stall_seen_.erase(job.id);
  SetTimer(TimerKind::kGeneration, absl::StrCat(job.id.str(), "/", stored.number), stored.deadline);
  MarkGeneration(stored);
  PruneGenerations(job);
  for (const RankEntry& rank : stored.ranks) SendLaunch(stored, rank);
  Emit(Note{.kind = Note::Kind::kGenerationStarted, .job = job.id, .generation = stored.number});
  Emit(Note{.kind = Note::Kind::kQueueWait, .job = job.id, .seconds = waited});
}

void Machine::SendLaunch(const GenerationEntry& generation, const RankEntry& rank) {
  const JobEntry& job = state.jobs.at(generation.job);
  int32_t local = 0;
  for (const RankEntry& other : generation.ranks) {
    if (other.placement.worker == rank.placement.worker && other.placement.rank < rank.placement.rank) ++local;
  }
  Emit(LaunchTrainer{rank.placement.worker,
                     {generation.job, generation.number, rank.placement.rank},
                     static_cast<int32_t>(generation.ranks.size()),
                     local,
                     rank.placement.slots,
                     job.generation - 1});
}

}  // namespace athanor::core

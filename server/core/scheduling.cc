// The pass over the queue: who starts, who is preempted, who waits and why; and the start of a generation.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/core/machine.h"

namespace athanor::core {
namespace {

PlacementRequest RequestOf(const JobEntry& job) {
  return {job.spec.ranks, job.spec.slots_per_rank, job.spec.device};
}

}  // namespace

void Machine::Enqueue(JobEntry& job) {
  job.overtaken = 0;
  job.reserved = false;
  queue_.Add(job);
  job.queued_at = now_;
  dirty_.Mark(job.id);
}

void Machine::Dequeue(const JobEntry& job) {
  if (queue_.Remove(job)) schedule_ = true;  // whoever waited behind it may go
}

int32_t Machine::QueuePosition(const JobId& id) const {
  const auto job = state.jobs.find(id);
  return job == state.jobs.end() || job->second.state != JobState::kQueued ? 0 : queue_.Position(job->second);
}

// Whom it waits for changes with every start: said as of now.
std::string Machine::WhyItWaits(const JobEntry& job) const {
  const std::optional<JobId> head = job.state == JobState::kQueued ? queue_.WaitsBehind(job) : std::nullopt;
  return head.has_value() ? absl::StrCat("waits behind ", head->str()) : job.reason;
}

void Machine::SetQueueReason(JobEntry& job, const std::string& reason) {
  if (job.reason == reason) return;
  job.reason = reason;
  AddEvent(job, "Waiting", reason);
}

void Machine::CapacityChanged() {
  if (queue_.empty()) return;
  schedule_ = capacity_changed_ = true;
}

// A submission to a long queue costs as much as one to a short one: a pass is only made when a new job is not behind
// one that waits already, or when slots changed.
void Machine::Schedule() {
  const std::vector<JobId> fresh = queue_.TakeFresh();
  if (capacity_changed_) Unpark();
  const auto placeable = [this](const JobId& id) { return !MustWait(id); };
  if (std::any_of(fresh.begin(), fresh.end(), placeable)) schedule_ = true;
  if (schedule_) {
    std::set<std::string> devices;  // whose queues may move
    for (const auto& [id, worker] : state.workers) devices.insert(worker.device);
    for (const JobId& id : fresh) {
      if (auto job = state.jobs.find(id); job != state.jobs.end()) devices.insert(job->second.spec.device);
    }
    SchedulePass(devices.size());
    if (GrantReservations()) SchedulePass(devices.size());
    for (const JobId& id : fresh) MustWait(id);
  }
  schedule_ = capacity_changed_ = false;
}

// True when a job must wait, whatever is free: behind the head of its device kind, or parked with others of its shape.
bool Machine::MustWait(const JobId& id) {
  auto found = state.jobs.find(id);
  if (found == state.jobs.end() || found->second.state != JobState::kQueued) return true;
  JobEntry& job = found->second;
  if (!queue_.Contains(job)) return true;  // parked already
  if (queue_.HasParked(JobQueue::ShapeOf(job))) {
    Park(job);
    return true;
  }
  const std::optional<JobId> head = queue_.WaitsBehind(job);
  if (head.has_value() && job.reason.empty()) SetQueueReason(job, absl::StrCat("waits behind ", head->str()));
  return head.has_value();
}

void Machine::Park(JobEntry& job) {
  queue_.Park(job);
  SetQueueReason(job,
                 absl::StrCat("waits for more workers: needs ", job.spec.ranks, " x ", job.spec.slots_per_rank, " ",
                              job.spec.device, " slots at once, more than there are even with every slot free"));
}

void Machine::Unpark() {
  if (!queue_.HasParked()) return;
  const std::vector<FreeSlots> all = CollectFreeSlots(state, /*ignore_used=*/true);
  queue_.Unpark([&all](const JobQueue::Shape& shape) {
    const auto& [device, ranks, slots_per_rank] = shape;
    return Place({ranks, slots_per_rank, device}, all).placed;
  });
}

// Ends where the queues of all `devices` kinds are blocked.
void Machine::SchedulePass(size_t devices) {
  std::vector<FreeSlots> free = CollectFreeSlots(state);
  queue_.ClearHeads();
  for (auto it = queue_.ordered().begin(); it != queue_.ordered().end() && queue_.Heads() < devices;) {
    JobEntry& job = state.jobs.at(std::get<JobId>(*it++));  // placing takes it out of the queue
    if (queue_.IsBlocked(job.spec.device) || HoldStrict(job) || TryPlace(job, free)) continue;
    if (!Place(RequestOf(job), CollectFreeSlots(state, /*ignore_used=*/true)).placed) {
      Park(job);
      continue;
    }
    const bool preempting = PreemptFor(job, free);
    const std::string what = preempting ? std::string("preempting jobs of lower priority") : PlaceJob(job, free).reason;
    SetQueueReason(job,
                   absl::StrCat(job.reserved ? "next, overtaken too often, slots are kept for it: " : "next: ", what));
    queue_.SetHead(job);
  }
}

// Not on a worker where its launch has failed, as long as the cluster has room for it elsewhere.
PlacementResult Machine::PlaceJob(const JobEntry& job, const std::vector<FreeSlots>& free) const {
  const PlacementRequest request = RequestOf(job);
  const std::set<WorkerId> failed = LaunchFailedOn(job);
  if (failed.empty()) return Place(request, free);
  const auto others = [&failed](std::vector<FreeSlots> slots) {
    std::erase_if(slots, [&failed](const FreeSlots& one) { return failed.contains(one.worker); });
    return slots;
  };
  PlacementResult place = Place(request, others(free));
  if (place.placed || !Place(request, others(CollectFreeSlots(state, /*ignore_used=*/true))).placed)
    return place.placed ? place : Place(request, free);
  absl::StrAppend(&place.reason, " on other workers than ", failed.begin()->str(), ", where its launch failed");
  return place;
}

// An older copy of the store does not know which ranks run. Those with strict fencing have ended a lease after the last
// coordinator that they heard, and that one was not later than our start.
bool Machine::HoldStrict(JobEntry& job) {
  const absl::Time until = recovered_at_ + options.lease;
  if (job.spec.fencing != Fencing::kStrict || job.created_at >= recovered_at_ || now_ >= until) return false;
  SetQueueReason(job,
                 "fencing: strict: waits a lease after the coordinator's start, in case that ranks of it still run");
  timers_.Set(StrictJobsTimer{}, until);
  return true;
}

bool Machine::TryPlace(JobEntry& job, std::vector<FreeSlots>& free) {
  const PlacementResult place = PlaceJob(job, free);
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

// Priority alone would let a stream of narrow jobs starve a wide one of lower priority: the oldest job that waits for a
// device kind is overtaken a bounded number of times.
void Machine::CountOvertaken(const JobEntry& started) {
  const std::optional<JobId> waiting = queue_.Oldest(started.spec.device);
  if (!waiting.has_value()) return;
  JobEntry& oldest = state.jobs.at(*waiting);
  if (oldest.submit_order > started.submit_order || oldest.reserved) return;
  if (++oldest.overtaken == options.max_overtaken) overtaken_.push_back(oldest.id);
}

// True when a job has got a reservation: it is the next of its device kind, whatever its priority.
bool Machine::GrantReservations() {
  bool granted = false;
  for (const JobId& id : std::exchange(overtaken_, {})) {
    JobEntry& job = state.jobs.at(id);
    if (!queue_.Reserve(job)) continue;  // it has started after all
    granted = true;
    AddEvent(job, "Reserved",
             absl::StrCat(job.overtaken, " younger jobs of higher priority were started before it: ",
                          "it is the next, slots are kept for it"));
  }
  return granted;
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
    all.reserve(coming.size());
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

void Machine::StartGeneration(JobEntry& job, const PlacementResult& place) {
  Account(job);
  Dequeue(job);
  const double waited = absl::ToDoubleSeconds(now_ - job.queued_at);
  GenerationEntry generation;
  generation.job = job.id;
  generation.number = job.generation = std::max(job.generation, job.newest_generation) + 1;
  generation.created_at = now_;
  generation.deadline = now_ + job.spec.timeouts.join;
  generation.reason = place.reason;
  generation.resume_step = NewestCommitted(state, job.id);
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
  const std::string from = StartOf(job, generation.resume_step);
  MoveJob(job, JobTrigger::kPlaced, absl::StrCat("generation ", generation.number, ": ", place.reason));
  AddEvent(job, "Placed", absl::StrCat(place.reason, "; starts from ", from), generation.number);
  GenerationEntry& stored = state.generations[job.id][generation.number] = std::move(generation);
  live_jobs_.insert(job.id);
  CountOvertaken(job);
  stall_seen_.erase(job.id);
  timers_.Set(GenerationTimer{job.id, stored.number}, stored.deadline);
  dirty_.Mark(stored);
  PruneGenerations(job);
  std::vector<Rank> ranks(stored.ranks.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  SendLaunch(stored, ranks);
  Emit(Note{.kind = Note::Kind::kGenerationStarted, .job = job.id, .generation = stored.number});
  Emit(Note{.kind = Note::Kind::kQueueWait, .job = job.id, .seconds = waited});
}

void Machine::SendLaunch(const GenerationEntry& generation, const std::vector<Rank>& ranks) {
  const JobEntry& job = state.jobs.at(generation.job);
  LaunchRanks launch{.job = job.id, .generation = generation.number, .restarts = job.generation - 1};
  launch.world_size = static_cast<int32_t>(generation.ranks.size());
  launch.spec = job.spec.payload;
  std::map<WorkerId, int32_t> on_worker;
  for (const RankEntry& rank : generation.ranks) {
    const int32_t local = on_worker[rank.placement.worker]++;
    if (std::find(ranks.begin(), ranks.end(), rank.placement.rank) != ranks.end())
      launch.seats.push_back({rank.placement, local});
  }
  Emit(std::move(launch));
}

}  // namespace athanor::core

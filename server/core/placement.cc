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
  job.overtaken = 0;
  job.reserved = false;
  queue_.insert(KeyOf(job));
  waiting_[job.spec.device].insert({job.submit_order, job.id});
  fresh_.push_back(job.id);
  job.queued_at = now_;
  dirty_.Mark(job.id);
}

void Machine::Dequeue(const JobEntry& job) {
  const QueueKey key = KeyOf(job);
  if (auto aside = aside_.find(ShapeOf(job)); aside != aside_.end()) {
    aside->second.erase(key);
    if (aside->second.empty()) aside_.erase(aside);
  }
  queue_.erase(key);
  waiting_[job.spec.device].erase({job.submit_order, job.id});
  // Whoever waited behind it may go.
  if (auto head = blocked_.find(job.spec.device); head != blocked_.end() && head->second == key) schedule_ = true;
}

int32_t Machine::QueueLength() const {
  size_t length = queue_.size();
  for (const auto& [shape, keys] : aside_) length += keys.size();
  return static_cast<int32_t>(length);
}

int32_t Machine::QueuePosition(const JobId& id) const {
  auto job = state.jobs.find(id);
  if (job == state.jobs.end() || job->second.state != JobState::kQueued) return 0;
  const QueueKey key = KeyOf(job->second);
  int64_t before = std::distance(queue_.begin(), queue_.lower_bound(key));
  for (const auto& [shape, keys] : aside_) before += std::distance(keys.begin(), keys.lower_bound(key));
  return static_cast<int32_t>(before) + 1;
}

// Whom it waits for changes with every start: said as of now.
std::string Machine::WhyItWaits(const JobEntry& job) const {
  const QueueKey key = KeyOf(job);
  const auto head = blocked_.find(job.spec.device);
  if (job.state != JobState::kQueued || !queue_.contains(key) || head == blocked_.end() || key <= head->second ||
      !queue_.contains(head->second))
    return job.reason;
  return absl::StrCat("waits behind ", std::get<JobId>(head->second).str());
}

void Machine::SetQueueReason(JobEntry& job, const std::string& reason) {
  if (job.reason == reason) return;
  job.reason = reason;
  AddEvent(job, "Waiting", reason);
}

void Machine::CapacityChanged() {
  if (queue_.empty() && aside_.empty()) return;
  schedule_ = capacity_changed_ = true;
}

// A submission to a long queue costs as much as one to a short one: a pass is only made when a new job is not behind
// one that waits already, or when slots changed.
void Machine::Schedule() {
  std::vector<JobId> fresh;
  fresh.swap(fresh_);
  if (capacity_changed_) BringBackFromAside();
  const auto placeable = [this](const JobId& id) { return !PutBehindTheQueue(id); };
  if (std::any_of(fresh.begin(), fresh.end(), placeable)) schedule_ = true;
  if (schedule_) {
    std::set<std::string> devices;  // whose queues may move
    for (const auto& [id, worker] : state.workers) devices.insert(worker.device);
    for (const JobId& id : fresh) {
      if (auto job = state.jobs.find(id); job != state.jobs.end()) devices.insert(job->second.spec.device);
    }
    SchedulePass(devices.size());
    if (GrantReservations()) SchedulePass(devices.size());
    for (const JobId& id : fresh) PutBehindTheQueue(id);
  }
  schedule_ = capacity_changed_ = false;
}

// True when a job must wait, whatever is free: behind the head of its device kind, or aside with others of its shape.
bool Machine::PutBehindTheQueue(const JobId& id) {
  auto found = state.jobs.find(id);
  if (found == state.jobs.end() || found->second.state != JobState::kQueued) return true;
  JobEntry& job = found->second;
  const QueueKey key = KeyOf(job);
  if (!queue_.contains(key)) return true;  // aside already
  if (aside_.contains(ShapeOf(job))) {
    PutAside(key, job);
    return true;
  }
  auto head = blocked_.find(job.spec.device);
  if (head == blocked_.end() || !queue_.contains(head->second) || key <= head->second) return false;
  if (job.reason.empty()) SetQueueReason(job, absl::StrCat("waits behind ", std::get<JobId>(head->second).str()));
  return true;
}

void Machine::PutAside(const QueueKey& key, JobEntry& job) {
  queue_.erase(key);
  waiting_[job.spec.device].erase({job.submit_order, job.id});
  aside_[ShapeOf(job)].insert(key);
  SetQueueReason(job,
                 absl::StrCat("waits for more workers: needs ", job.spec.ranks, " x ", job.spec.slots_per_rank, " ",
                              job.spec.device, " slots at once, more than there are even with every slot free"));
}

void Machine::BringBackFromAside() {
  if (aside_.empty()) return;
  const std::vector<FreeSlots> all = CollectFreeSlots(state, /*ignore_used=*/true);
  for (auto it = aside_.begin(); it != aside_.end();) {
    const auto& [device, ranks, slots_per_rank] = it->first;
    if (!Place({ranks, slots_per_rank, device}, all).placed) {
      ++it;
      continue;
    }
    queue_.insert(it->second.begin(), it->second.end());
    for (const QueueKey& key : it->second) waiting_[device].insert({std::get<uint64_t>(key), std::get<JobId>(key)});
    it = aside_.erase(it);
  }
}

// Ends where the queues of all `devices` kinds are blocked.
void Machine::SchedulePass(size_t devices) {
  std::vector<FreeSlots> free = CollectFreeSlots(state);
  blocked_.clear();
  for (auto it = queue_.begin(); it != queue_.end() && blocked_.size() < devices;) {
    const QueueKey key = *it++;  // placing takes it out of the queue
    JobEntry& job = state.jobs.at(std::get<JobId>(key));
    if (blocked_.contains(job.spec.device) || HoldStrict(job) || TryPlace(job, free)) continue;
    if (!Place(RequestOf(job), CollectFreeSlots(state, /*ignore_used=*/true)).placed) {
      PutAside(key, job);
      continue;
    }
    const bool preempting = PreemptFor(job, free);
    const std::string what = preempting ? std::string("preempting jobs of lower priority") : PlaceJob(job, free).reason;
    SetQueueReason(job,
                   absl::StrCat(job.reserved ? "next, overtaken too often, slots are kept for it: " : "next: ", what));
    blocked_[job.spec.device] = key;
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
  const auto waiting = waiting_.find(started.spec.device);
  if (waiting == waiting_.end() || waiting->second.empty()) return;
  JobEntry& oldest = state.jobs.at(waiting->second.begin()->second);
  if (oldest.submit_order > started.submit_order || oldest.reserved) return;
  if (++oldest.overtaken == options.max_overtaken) overtaken_.push_back(oldest.id);
}

// True when a job has got a reservation: it is the next of its device kind, whatever its priority.
bool Machine::GrantReservations() {
  bool granted = false;
  for (const JobId& id : std::exchange(overtaken_, {})) {
    JobEntry& job = state.jobs.at(id);
    if (queue_.erase(KeyOf(job)) == 0) continue;  // it has started after all
    job.reserved = granted = true;
    queue_.insert(KeyOf(job));
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
  generation.number = job.generation = std::max(job.generation, job.newest_generation) + 1;
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

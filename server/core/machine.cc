#include "server/core/machine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace athanor::core {

Machine::Machine(CoreOptions options_in, ClusterState recovered, absl::Time now)
    : options(options_in),
      state(std::move(recovered)),
      now_(now),
      recovered_at_(now),
      requests_(state.requests, options.max_requests, options.request_memory),
      finished_({options.max_finished_jobs, options.max_finished_bytes, options.finished_job_age}) {
  repairs_ = RepairRecovered(state, now);
  for (auto& [id, worker] : state.workers) {
    worker.used.clear();
    worker.session = 0;
    if (worker.state == WorkerState::kLost) {
      if (worker.lost_at == absl::InfinitePast()) worker.lost_at = now;
      timers_.Set(WorkerTimer{id}, worker.lost_at + options.lost_worker_age);
      continue;
    }
    if (worker.state == WorkerState::kQuarantined) timers_.Set(QuarantineTimer{id}, worker.quarantined_until);
    worker.last_heartbeat = now;
    worker.returns_by = now + options.lease;
    ArmLease(worker);
  }
  for (auto& [id, job] : state.jobs) {
    state.next_submit_order = std::max(state.next_submit_order, job.submit_order + 1);
    if (job.state == JobState::kQueued) queue_.Add(job);
    if (job.state == JobState::kBackingOff) timers_.Set(RetryTimer{id}, job.retry_at);
    if (IsFinal(job.state)) finished_.Add(id, job.ended_at, BytesOf(state, job));
    if (!IsFinal(job.state) && !job.parent.empty()) children_[job.parent].insert(id);
    if (!IsFinal(job.state)) job.goodput.accounted_until = std::max(job.goodput.accounted_until, job.created_at);
  }
  queue_.TakeFresh();  // all were looked at by an earlier run
  for (auto& [job, generations] : state.generations) {
    for (auto& [number, generation] : generations) {
      if (!IsLive(generation.state)) continue;
      live_jobs_.insert(job);
      for (RankEntry& rank : generation.ranks) {
        rank.progress.updated_at = rank.progress.advanced_at = now;
        if (rank.state == RankState::kExited) continue;
        auto worker = state.workers.find(rank.placement.worker);
        if (worker == state.workers.end()) continue;
        for (int32_t slot : rank.placement.slots) worker->second.used[slot] = {job, number, rank.placement.rank};
      }
      // Agents need a moment to come back: no deadline of a generation is nearer than a lease.
      if (generation.deadline != absl::InfiniteFuture()) {
        generation.deadline = std::max(generation.deadline, now + options.lease);
        timers_.Set(GenerationTimer{job, number}, generation.deadline);
      }
      if (generation.state == GenerationState::kStopping)
        generation.stop_limit = std::max(now, std::min(generation.deadline, now + absl::Hours(1))) + StopLimit();
      if (generation.state == GenerationState::kTraining) {
        timers_.Set(HangTimer{job, number}, now + options.lease);
      }
    }
  }
  for (const auto& [job, checkpoints] : state.checkpoints) {
    for (const auto& [step, checkpoint] : checkpoints) {
      if (checkpoint.state == CheckpointState::kDeleting) deleting_.insert({job, step});
    }
  }
}

std::vector<Effect> Machine::Recover(absl::Time now) {
  now_ = now;
  TellRepairs();
  for (auto& [id, worker] : state.workers) {
    // A worker that was Suspect when we died gets the same full lease as the others.
    if (worker.state == WorkerState::kSuspect)
      MoveWorker(worker, WorkerTrigger::kHeartbeat, "the coordinator came back");
  }
  RecoverGenerations();
  // What came due while nobody was there: a retry, a request key or a job that may be forgotten.
  ForgetOldRequests();
  ForgetOldJobs();
  Handle(DeadlineReached{});
  schedule_ = !queue_.ordered().empty();
  return TakeEffects();
}

// What is left of a generation may be over. RepairRecovered() has given every job that needs a generation a live one,
// and known workers to the slots of its ranks; a rank without slots can still sit on a worker that nobody hears.
void Machine::RecoverGenerations() {
  std::vector<JobId> ids;  // ending a generation may forget jobs
  for (const auto& [id, job] : state.jobs) {
    if (NeedsGeneration(job.state)) ids.push_back(id);
  }
  for (const JobId& id : ids) {
    JobEntry* job = FindJob(id);
    GenerationEntry* generation = job == nullptr ? nullptr : LiveGeneration(*job);
    if (generation == nullptr) continue;
    const Generation number = generation->number;
    const std::vector<RankEntry> ranks = generation->ranks;
    for (const RankEntry& rank : ranks) {
      const auto worker = state.workers.find(rank.placement.worker);
      if (worker != state.workers.end() && worker->second.state != WorkerState::kLost) continue;
      LoseRank({id, number, rank.placement.rank}, rank.placement.worker,
               absl::StrCat(rank.placement.worker.str(), " is ", worker == state.workers.end() ? "unknown" : "Lost"));
    }
    if ((job = FindJob(id)) != nullptr && (generation = LiveGeneration(*job)) != nullptr)
      MaybeEndGeneration(*generation);
  }
}

// What was repaired is written with the first commit.
void Machine::TellRepairs() {
  for (const Repair& repair : repairs_) {
    if (!repair.worker.empty()) dirty_.Mark(repair.worker);
    for (const Generation number : repair.generations) dirty_.MarkGeneration(repair.job, number);
    for (const core::Step step : repair.checkpoints) dirty_.MarkCheckpoint(repair.job, step);
    if (JobEntry* job = FindJob(repair.job)) AddEvent(*job, "RecordRepaired", repair.what, job->generation);
  }
  repairs_.clear();
}

void Machine::Handle(const RecordPutAside& event) {
  if (JobEntry* job = FindJob(event.job)) AddEvent(*job, "RecordPutAside", event.problem, job->generation);
}

std::vector<Effect> Machine::Apply(const Event& event, absl::Time now) {
  now_ = std::max(now_, now);
  std::visit([this](const auto& one) { Handle(one); }, event);
  return TakeEffects();
}

std::vector<Effect> Machine::TakeEffects() {
  Schedule();
  std::vector<Effect> effects;
  dirty_.Flush(state, effects);
  std::move(effects_.begin(), effects_.end(), std::back_inserter(effects));
  effects_.clear();
  return effects;
}

void Machine::Handle(const DeadlineReached&) {
  while (const std::optional<TimerKey> key = timers_.TakeDue(now_)) {
    std::visit([this](const auto& timer) { Fire(timer); }, *key);
  }
}

void Machine::Fire(const WorkerTimer& timer) {
  if (auto it = state.workers.find(timer.worker); it != state.workers.end()) WorkerDeadline(it->second);
}

void Machine::Fire(const QuarantineTimer& timer) {
  if (auto it = state.workers.find(timer.worker); it != state.workers.end()) EndQuarantine(it->second);
}

void Machine::Fire(const RetryTimer& timer) {
  JobEntry* job = FindJob(timer.job);
  if (job == nullptr || job->state != JobState::kBackingOff) return;
  Account(*job);
  MoveJob(*job, JobTrigger::kRetryTimeReached, "back-off is over");
  Enqueue(*job);
}

void Machine::Fire(const HangTimer& timer) {
  GenerationEntry* generation = FindGeneration(timer.job, timer.generation);
  if (generation != nullptr && IsLive(generation->state)) CheckHang(*generation);
}

void Machine::Fire(const GenerationTimer& timer) {
  GenerationEntry* generation = FindGeneration(timer.job, timer.generation);
  if (generation != nullptr && IsLive(generation->state)) GenerationDeadline(*generation);
}

void Machine::Handle(const ClockGap& event) {
  timers_.Shift(event.gap);
  for (auto& [id, worker] : state.workers) {
    worker.lease_until += event.gap;
    worker.last_heartbeat += event.gap;
    worker.quarantined_until += event.gap;
    worker.returns_by += event.gap;
  }
  for (const JobId& id : live_jobs_) {
    GenerationEntry* generation = LiveGeneration(state.jobs.at(id));
    if (generation == nullptr) continue;
    generation->deadline += event.gap;  // an infinite one stays so
    generation->stop_limit += event.gap;
    for (RankEntry& rank : generation->ranks) {
      rank.progress.updated_at += event.gap;
      rank.progress.advanced_at += event.gap;
    }
  }
}

void Machine::AddEvent(JobEntry& job, const std::string& type, const std::string& message, Generation generation,
                       Rank rank) {
  const int64_t sequence = job.next_event++;
  Emit(PutRecord{JobEventEntry{job.id, sequence, now_, type, generation, rank, message}});
  const int64_t oldest = sequence - options.max_events_per_job;
  if (oldest > 0) Emit(DeleteRecord{DeleteRecord::Kind::kEvent, job.id, oldest, {}});
  dirty_.Mark(job.id);
}

void Machine::SumUp(JobEntry& job, const std::string& type, const std::string& message, Generation generation,
                    Rank rank) {
  if (const std::optional<std::string> text = event_sums_.Add(job.id, type, message, now_))
    AddEvent(job, type, *text, generation, rank);
}

void Machine::SaySums(JobEntry& job) {
  for (const auto& [type, text] : event_sums_.Take(job.id)) AddEvent(job, type, text, job.generation);
}

JobEntry* Machine::FindJob(const JobId& id) {
  auto it = state.jobs.find(id);
  return it == state.jobs.end() ? nullptr : &it->second;
}

GenerationEntry* Machine::FindGeneration(const JobId& id, Generation number) {
  auto job = state.generations.find(id);
  if (job == state.generations.end()) return nullptr;
  auto it = job->second.find(number);
  return it == job->second.end() ? nullptr : &it->second;
}

GenerationEntry* Machine::LiveGeneration(const JobEntry& job) {
  GenerationEntry* generation = FindGeneration(job.id, job.generation);
  return generation != nullptr && IsLive(generation->state) ? generation : nullptr;
}

CoordinatorCore::CoordinatorCore(CoreOptions options, ClusterState recovered, absl::Time now)
    : machine_(std::make_unique<Machine>(options, std::move(recovered), now)) {}
CoordinatorCore::~CoordinatorCore() = default;
CoordinatorCore::CoordinatorCore(CoordinatorCore&&) noexcept = default;
CoordinatorCore& CoordinatorCore::operator=(CoordinatorCore&&) noexcept = default;
std::vector<Effect> CoordinatorCore::Step(const Event& event, absl::Time now) {
  return machine_->Apply(event, now);
}
std::vector<Effect> CoordinatorCore::Recover(absl::Time now) {
  return machine_->Recover(now);
}
absl::Time CoordinatorCore::NextDeadline() const {
  return machine_->NextDeadline();
}
const ClusterState& CoordinatorCore::state() const {
  return machine_->state;
}
const CoreOptions& CoordinatorCore::options() const {
  return machine_->options;
}
int32_t CoordinatorCore::QueuePosition(const JobId& job) const {
  return machine_->QueuePosition(job);
}
std::string CoordinatorCore::Reason(const JobId& id) const {
  const auto job = machine_->state.jobs.find(id);
  return job == machine_->state.jobs.end() ? "" : machine_->WhyItWaits(job->second);
}

}  // namespace athanor::core

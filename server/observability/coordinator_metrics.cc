#include "server/observability/coordinator_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/version.h"

namespace athanor {
namespace {

std::string Lower(const char* name) {
  return absl::AsciiStrToLower(name);
}

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return static_cast<double>(resident) * sysconf(_SC_PAGESIZE);
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + 1e-6 * (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// InfinitePast: never.
absl::Time CheckpointedAt(const core::ClusterState& state, const core::JobId& job) {
  const auto checkpoints = state.checkpoints.find(job);
  if (checkpoints == state.checkpoints.end()) return absl::InfinitePast();
  for (auto it = checkpoints->second.rbegin(); it != checkpoints->second.rend(); ++it) {
    if (it->second.state == core::CheckpointState::kCommitted) return it->second.committed_at;
  }
  return absl::InfinitePast();
}

absl::Time AdvancedAt(const core::GenerationEntry& generation) {
  absl::Time newest = generation.created_at;
  for (const core::RankEntry& rank : generation.ranks) newest = std::max(newest, rank.progress.advanced_at);
  return newest;
}

std::map<std::string, double> Split(const core::GoodputEntry& goodput) {
  return {{"productive", goodput.productive_seconds}, {"recomputed", goodput.recomputed_seconds},
          {"checkpoint", goodput.checkpoint_seconds}, {"recovery", goodput.recovery_seconds},
          {"queue", goodput.queue_seconds},           {"suspended", goodput.suspended_seconds}};
}

void ShowBuild(prometheus::Registry& registry) {
  prometheus::BuildGauge()
      .Name("athanor_build_info")
      .Help("Version of this build")
      .Register(registry)
      .Add({{"version", Version()}, {"commit", Commit()}})
      .Set(1);
}

}  // namespace

CoordinatorMetrics::CoordinatorMetrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      jobs_(*registry_),
      generations_(*registry_),
      workers_(*registry_),
      checkpoints_(*registry_),
      store_(*registry_),
      process_(*registry_) {
  ShowBuild(*registry_);
  for (int state = 1; state <= 9; ++state)
    jobs_.by_state.Add({{"state", Lower(core::ToString(static_cast<core::JobState>(state)))}});
  for (int kind = 1; kind < kCauseKinds; ++kind)
    for (auto* family : {&generations_.restarts, &generations_.failures})
      family->Add({{"cause", ToString(static_cast<CauseKind>(kind))}});
  for (const core::JobState state : {core::JobState::kSucceeded, core::JobState::kFailed, core::JobState::kCancelled})
    jobs_.ended.Add({{"state", Lower(core::ToString(state))}});
  for (const auto& [name, seconds] : Split({})) jobs_.goodput.Add({{"kind", name}});
}

void CoordinatorMetrics::OnNote(const core::Note& note) {
  using Kind = core::Note::Kind;
  switch (note.kind) {
    case Kind::kJobSubmitted:
      jobs_.submitted.Increment();
      break;
    case Kind::kJobEnded:
      jobs_.ended.Add({{"state", Lower(note.label.c_str())}}).Increment();
      break;
    case Kind::kGenerationStarted:
      generations_.started.Increment();
      break;
    case Kind::kRestart:
      generations_.restarts.Add({{"cause", note.label}}).Increment();
      break;
    case Kind::kFailure:
      generations_.failures.Add({{"cause", note.label}}).Increment();
      break;
    case Kind::kQuarantine:
      workers_.quarantines.Increment();
      break;
    case Kind::kRecovered:
      generations_.recovery.Observe(note.seconds);
      break;
    case Kind::kFencedMessage:
      workers_.fenced.Add({{"kind", note.label}}).Increment();
      break;
    case Kind::kLeaseExpired:
      workers_.lease_expiries.Increment();
      break;
    case Kind::kCheckpointCommitted:
      checkpoints_.committed.Increment();
      checkpoints_.bytes.Increment(static_cast<double>(std::max<int64_t>(0, note.bytes)));
      checkpoints_.seconds.Observe(note.seconds);
      break;
    case Kind::kCheckpointFailed:
      checkpoints_.failures.Increment();
      break;
    case Kind::kCheckpointDamaged:
      checkpoints_.damages.Increment();
      break;
    case Kind::kHang:
      generations_.hangs.Increment();
      break;
    case Kind::kQueueWait:
      jobs_.queue_wait.Observe(note.seconds);
      break;
    case Kind::kCheckpointDeleted:
    case Kind::kPreemption:
    case Kind::kInternalError:
      break;
  }
}

void CoordinatorMetrics::DropJob(const core::JobId& id) {
  auto it = series_.find(id);
  if (it == series_.end()) return;
  jobs_.step.Remove(it->second.step);
  jobs_.loss.Remove(it->second.loss);
  jobs_.throughput.Remove(it->second.throughput);
  jobs_.idle.Remove(it->second.idle);
  if (it->second.checkpoint_age != nullptr) checkpoints_.age.Remove(it->second.checkpoint_age);
  series_.erase(it);
}

void CoordinatorMetrics::OnJobTouched(const core::ClusterState& state, const core::JobId& id) {
  auto job = state.jobs.find(id);
  if (job == state.jobs.end()) {
    goodput_seen_.erase(id);
    return DropJob(id);
  }
  std::map<std::string, double>& seen = goodput_seen_[id];
  for (const auto& [name, seconds] : Split(job->second.goodput)) {
    // Counters of the cluster: what was accounted before this start of the coordinator is in the store, not in the
    // counter.
    auto [it, first] = seen.emplace(name, job->second.created_at == job->second.goodput.accounted_until ? 0 : seconds);
    if (!first && seconds > it->second) jobs_.goodput.Add({{"kind", name}}).Increment(seconds - it->second);
    it->second = seconds;
  }
  if (core::IsFinal(job->second.state)) {
    goodput_seen_.erase(id);
    return DropJob(id);
  }
  if (job->second.generation == 0) return;
  // What waits or stands still as asked is no live job: no alert for it.
  if (core::CurrentGeneration(state, job->second) == nullptr ||
      !core::IsLive(core::CurrentGeneration(state, job->second)->state))
    return DropJob(id);
  JobSeries& series = series_[id];
  if (series.step == nullptr) {
    const std::map<std::string, std::string> labels = {{"job_id", id.str()}, {"job_name", job->second.spec.name}};
    series.step = &jobs_.step.Add(labels);
    series.loss = &jobs_.loss.Add(labels);
    series.throughput = &jobs_.throughput.Add(labels);
    series.idle = &jobs_.idle.Add(labels);
  }
  const core::RankProgress progress = core::AggregateProgress(state, job->second);
  series.step->Set(static_cast<double>(progress.step));
  series.loss->Set(progress.loss);
  series.throughput->Set(progress.samples_per_second);
}

void CoordinatorMetrics::SampleJobs(const core::ClusterState& state, absl::Time now) {
  absl::Time oldest_queued = now;
  for (const auto& [id, job] : state.jobs) {
    if (job.state == core::JobState::kQueued) oldest_queued = std::min(oldest_queued, job.queued_at);
  }
  jobs_.queued_for.Set(absl::ToDoubleSeconds(now - oldest_queued));
  for (auto& [id, series] : series_) {
    const auto found = state.jobs.find(id);
    if (found == state.jobs.end()) continue;  // about to be dropped
    const core::JobEntry& job = found->second;
    if (const core::GenerationEntry* generation = core::CurrentGeneration(state, job))
      series.idle->Set(absl::ToDoubleSeconds(std::max(now - AdvancedAt(*generation), absl::ZeroDuration())));
    const absl::Time checkpointed = CheckpointedAt(state, id);
    if (checkpointed == absl::InfinitePast()) continue;
    if (series.checkpoint_age == nullptr)
      series.checkpoint_age = &checkpoints_.age.Add({{"job_id", id.str()}, {"job_name", job.spec.name}});
    series.checkpoint_age->Set(absl::ToDoubleSeconds(now - checkpointed));
  }
}

void CoordinatorMetrics::CountJob(const core::JobId& id, core::JobState state) {
  auto counted = live_.find(id);
  if (counted == live_.end() && core::IsFinal(state)) return;  // was over before
  if (counted != live_.end()) --jobs_by_state_[counted->second];
  ++jobs_by_state_[state];
  if (core::IsFinal(state)) {
    live_.erase(counted);
  } else {
    live_[id] = state;
  }
}

void CoordinatorMetrics::CountJobs(const core::ClusterState& state) {
  jobs_by_state_.clear();
  live_.clear();
  for (const auto& [id, job] : state.jobs) {
    ++jobs_by_state_[job.state];
    if (!core::IsFinal(job.state)) live_[id] = job.state;
  }
}

void CoordinatorMetrics::SetJobs() {
  for (int value = 1; value <= 9; ++value) {
    const auto one = static_cast<core::JobState>(value);
    jobs_.by_state.Add({{"state", Lower(core::ToString(one))}}).Set(static_cast<double>(jobs_by_state_[one]));
  }
  jobs_.queued.Set(static_cast<double>(jobs_by_state_[core::JobState::kQueued]));
}

void CoordinatorMetrics::CountWorkers(const core::ClusterState& state) {
  std::map<core::WorkerState, int64_t> workers;
  int64_t used = 0, total = 0;
  for (const auto& [id, worker] : state.workers) {
    ++workers[worker.state];
    if (worker.state == core::WorkerState::kLost) continue;
    used += static_cast<int64_t>(worker.used.size());
    total += worker.slots;
  }
  for (int value = 1; value <= static_cast<int>(core::WorkerState::kQuarantined); ++value) {
    const auto one = static_cast<core::WorkerState>(value);
    workers_.by_state.Add({{"state", Lower(core::ToString(one))}}).Set(static_cast<double>(workers[one]));
  }
  workers_.slots.Add({{"use", "used"}}).Set(static_cast<double>(used));
  workers_.slots.Add({{"use", "free"}}).Set(static_cast<double>(total - used));
}

void CoordinatorMetrics::OnCommit(const std::vector<core::Effect>& effects, const core::ClusterState& state) {
  bool jobs = false, workers = false, recount = false;
  for (const core::Effect& effect : effects) {
    if (const auto* put = std::get_if<core::PutRecord>(&effect)) {
      if (const auto* job = std::get_if<core::JobEntry>(&put->record)) {
        CountJob(job->id, job->state);
        jobs = true;
      }
      workers = workers || std::holds_alternative<core::WorkerEntry>(put->record) ||
                std::holds_alternative<core::GenerationEntry>(put->record);
    } else if (const auto* deletion = std::get_if<core::DeleteRecord>(&effect)) {
      recount = recount || deletion->kind == core::DeleteRecord::Kind::kJob;
      workers = workers || deletion->kind == core::DeleteRecord::Kind::kWorker;
    }
  }
  if (recount) CountJobs(state);
  if (jobs || recount) SetJobs();
  if (workers) CountWorkers(state);
}

void CoordinatorMetrics::OnSample(const core::ClusterState& state, absl::Time now) {
  CountJobs(state);
  SetJobs();
  CountWorkers(state);
  SampleJobs(state, now);
  absl::Duration oldest = absl::ZeroDuration();
  for (const auto& [id, worker] : state.workers) {
    if (worker.state != core::WorkerState::kLost && worker.last_heartbeat != absl::InfinitePast())
      oldest = std::max(oldest, now - worker.last_heartbeat);
  }
  workers_.heartbeat_age.Set(absl::ToDoubleSeconds(oldest));
  process_.resident_bytes.Set(ResidentBytes());
  process_.cpu_seconds.Increment(std::max(0.0, CpuSeconds() - process_.cpu_seconds.Value()));
}

void CoordinatorMetrics::OnStoreWrite(double seconds, bool ok) {
  store_.write.Observe(seconds);
  if (!ok) store_.errors.Increment();
}

void CoordinatorMetrics::OnRpc(const std::string& method, const std::string& code, double seconds) {
  process_.rpc.Add({{"method", method}, {"code", code}}, ShortSeconds()).Observe(seconds);
}

}  // namespace athanor

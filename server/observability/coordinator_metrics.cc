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

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Buckets = prometheus::Histogram::BucketBoundaries;

Buckets ShortSeconds() {
  return {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
}
Buckets LongSeconds() {
  return {0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200};
}

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

prometheus::Family<prometheus::Gauge>& Gauges(prometheus::Registry& registry, const char* name, const char* help) {
  return BuildGauge().Name(name).Help(help).Register(registry);
}
prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry, const char* name, const char* help) {
  return BuildCounter().Name(name).Help(help).Register(registry);
}
prometheus::Family<prometheus::Histogram>& Histograms(prometheus::Registry& registry, const char* name,
                                                      const char* help) {
  return BuildHistogram().Name(name).Help(help).Register(registry);
}

void ShowBuild(prometheus::Registry& registry) {
  Gauges(registry, "athanor_build_info", "Version of this build")
      .Add({{"version", Version()}, {"commit", Commit()}})
      .Set(1);
}

}  // namespace

CoordinatorMetrics::CoordinatorMetrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      jobs_(Gauges(*registry_, "athanor_jobs", "Jobs by state")),
      workers_(Gauges(*registry_, "athanor_agents", "Agents by state")),
      slots_(Gauges(*registry_, "athanor_slots", "Slots of agents that take ranks, by use")),
      job_step_(Gauges(*registry_, "athanor_job_step", "Completed optimizer steps of a job that is not over")),
      job_loss_(Gauges(*registry_, "athanor_job_loss", "Training loss of a job that is not over")),
      job_throughput_(
          Gauges(*registry_, "athanor_job_samples_per_second", "Samples per second over all ranks of a job")),
      job_idle_(
          Gauges(*registry_, "athanor_job_idle_seconds",
                 "Since a rank of a running job last advanced: a step, a batch evaluated, bytes read or written")),
      job_checkpoint_age_(Gauges(*registry_, "athanor_job_checkpoint_age_seconds",
                                 "Age of the newest checkpoint of a running job that has one")),
      goodput_(Counters(*registry_, "athanor_goodput_seconds_total", "Seconds of all jobs by what they went into")),
      restarts_(Counters(*registry_, "athanor_job_restarts_total", "Restarts decided, by cause")),
      failures_(
          Counters(*registry_, "athanor_generation_failures_total", "Generations that failed, by their first cause")),
      fenced_(
          Counters(*registry_, "athanor_fenced_messages_total", "Messages of stale generations or sessions, by kind")),
      jobs_ended_(Counters(*registry_, "athanor_jobs_ended_total", "Jobs that ended, by final state")),
      rpc_(Histograms(*registry_, "athanor_rpc_duration_seconds", "Duration of unary calls by method and code")),
      queue_depth_(Gauges(*registry_, "athanor_queue_depth", "Jobs that wait for slots").Add({})),
      queue_oldest_(Gauges(*registry_, "athanor_queue_oldest_seconds",
                           "How long the job that waits for slots the longest has waited")
                        .Add({})),
      heartbeat_age_(
          Gauges(*registry_, "athanor_heartbeat_age_seconds", "Oldest heartbeat among agents that are not lost")
              .Add({})),
      resident_bytes_(Gauges(*registry_, "process_resident_memory_bytes", "Resident memory").Add({})),
      cpu_seconds_(Counters(*registry_, "process_cpu_seconds_total", "CPU time").Add({})),
      submitted_(Counters(*registry_, "athanor_jobs_submitted_total", "Jobs created").Add({})),
      generations_(Counters(*registry_, "athanor_generations_total", "Generations started").Add({})),
      lease_expiries_(Counters(*registry_, "athanor_lease_expiries_total", "Agents declared lost").Add({})),
      checkpoint_bytes_(
          Counters(*registry_, "athanor_checkpoint_bytes_total", "Bytes of committed checkpoints").Add({})),
      checkpoints_(Counters(*registry_, "athanor_checkpoints_total", "Committed checkpoints").Add({})),
      checkpoint_failures_(
          Counters(*registry_, "athanor_checkpoint_failures_total", "Saves that a rank had to give up").Add({})),
      checkpoint_damages_(
          Counters(*registry_, "athanor_checkpoint_damages_total", "Committed checkpoints found unreadable").Add({})),
      hangs_(Counters(*registry_, "athanor_hangs_total", "Hangs found").Add({})),
      quarantines_(
          Counters(*registry_, "athanor_quarantines_total", "Agents put aside because launches failed there").Add({})),
      store_errors_(Counters(*registry_, "athanor_store_errors_total", "Failed commits to the store").Add({})),
      records_refused_(Counters(*registry_, "athanor_store_records_refused_total",
                                "Records that could not have been read back and were not written")
                           .Add({})),
      records_aside_(Gauges(*registry_, "athanor_store_records_put_aside",
                            "Records that could not be used and lie aside as evidence")
                         .Add({})),
      recovery_(
          Histograms(*registry_, "athanor_recovery_seconds", "End of a failed generation to the first step of the next")
              .Add({}, LongSeconds())),
      queue_wait_(
          Histograms(*registry_, "athanor_queue_wait_seconds", "Time from queued to placed").Add({}, LongSeconds())),
      checkpoint_seconds_(
          Histograms(*registry_, "athanor_checkpoint_seconds", "Snapshot to commit").Add({}, LongSeconds())),
      store_write_(
          Histograms(*registry_, "athanor_store_write_seconds", "Synced commits to RocksDB").Add({}, ShortSeconds())) {
  ShowBuild(*registry_);
  for (int state = 1; state <= 9; ++state)
    jobs_.Add({{"state", Lower(core::ToString(static_cast<core::JobState>(state)))}});
  for (int kind = 1; kind < kCauseKinds; ++kind)
    for (auto* family : {&restarts_, &failures_}) family->Add({{"cause", ToString(static_cast<CauseKind>(kind))}});
  for (const core::JobState state : {core::JobState::kSucceeded, core::JobState::kFailed, core::JobState::kCancelled})
    jobs_ended_.Add({{"state", Lower(core::ToString(state))}});
  for (const auto& [name, seconds] : Split({})) goodput_.Add({{"kind", name}});
}

void CoordinatorMetrics::OnNote(const core::Note& note) {
  using Kind = core::Note::Kind;
  switch (note.kind) {
    case Kind::kJobSubmitted:
      submitted_.Increment();
      break;
    case Kind::kJobEnded:
      jobs_ended_.Add({{"state", Lower(note.label.c_str())}}).Increment();
      break;
    case Kind::kGenerationStarted:
      generations_.Increment();
      break;
    case Kind::kRestart:
      restarts_.Add({{"cause", note.label}}).Increment();
      break;
    case Kind::kFailure:
      failures_.Add({{"cause", note.label}}).Increment();
      break;
    case Kind::kQuarantine:
      quarantines_.Increment();
      break;
    case Kind::kRecovered:
      recovery_.Observe(note.seconds);
      break;
    case Kind::kFencedMessage:
      fenced_.Add({{"kind", note.label}}).Increment();
      break;
    case Kind::kLeaseExpired:
      lease_expiries_.Increment();
      break;
    case Kind::kCheckpointCommitted:
      checkpoints_.Increment();
      checkpoint_bytes_.Increment(static_cast<double>(std::max<int64_t>(0, note.bytes)));
      checkpoint_seconds_.Observe(note.seconds);
      break;
    case Kind::kCheckpointFailed:
      checkpoint_failures_.Increment();
      break;
    case Kind::kCheckpointDamaged:
      checkpoint_damages_.Increment();
      break;
    case Kind::kHang:
      hangs_.Increment();
      break;
    case Kind::kQueueWait:
      queue_wait_.Observe(note.seconds);
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
  job_step_.Remove(it->second.step);
  job_loss_.Remove(it->second.loss);
  job_throughput_.Remove(it->second.throughput);
  job_idle_.Remove(it->second.idle);
  if (it->second.checkpoint_age != nullptr) job_checkpoint_age_.Remove(it->second.checkpoint_age);
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
    if (!first && seconds > it->second) goodput_.Add({{"kind", name}}).Increment(seconds - it->second);
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
    series.step = &job_step_.Add(labels);
    series.loss = &job_loss_.Add(labels);
    series.throughput = &job_throughput_.Add(labels);
    series.idle = &job_idle_.Add(labels);
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
  queue_oldest_.Set(absl::ToDoubleSeconds(now - oldest_queued));
  for (auto& [id, series] : series_) {
    const auto found = state.jobs.find(id);
    if (found == state.jobs.end()) continue;  // about to be dropped
    const core::JobEntry& job = found->second;
    if (const core::GenerationEntry* generation = core::CurrentGeneration(state, job))
      series.idle->Set(absl::ToDoubleSeconds(std::max(now - AdvancedAt(*generation), absl::ZeroDuration())));
    const absl::Time checkpointed = CheckpointedAt(state, id);
    if (checkpointed == absl::InfinitePast()) continue;
    if (series.checkpoint_age == nullptr)
      series.checkpoint_age = &job_checkpoint_age_.Add({{"job_id", id.str()}, {"job_name", job.spec.name}});
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
    jobs_.Add({{"state", Lower(core::ToString(one))}}).Set(static_cast<double>(jobs_by_state_[one]));
  }
  queue_depth_.Set(static_cast<double>(jobs_by_state_[core::JobState::kQueued]));
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
    workers_.Add({{"state", Lower(core::ToString(one))}}).Set(static_cast<double>(workers[one]));
  }
  slots_.Add({{"use", "used"}}).Set(static_cast<double>(used));
  slots_.Add({{"use", "free"}}).Set(static_cast<double>(total - used));
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
  heartbeat_age_.Set(absl::ToDoubleSeconds(oldest));
  resident_bytes_.Set(ResidentBytes());
  cpu_seconds_.Increment(std::max(0.0, CpuSeconds() - cpu_seconds_.Value()));
}

void CoordinatorMetrics::OnStoreWrite(double seconds, bool ok) {
  store_write_.Observe(seconds);
  if (!ok) store_errors_.Increment();
}

void CoordinatorMetrics::OnRpc(const std::string& method, const std::string& code, double seconds) {
  rpc_.Add({{"method", method}, {"code", code}}, ShortSeconds()).Observe(seconds);
}

}  // namespace athanor

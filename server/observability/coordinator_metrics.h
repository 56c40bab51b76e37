// The coordinator's Prometheus metrics. Label sets are bounded: `job` only for jobs that are not over, no rank label.
// Thread-safe; On…() is called on the core loop, the RPC observer on gRPC threads.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "server/core/coordinator_core.h"
#include "server/observability/metric_families.h"

namespace athanor {

class CoordinatorMetrics {
 public:
  CoordinatorMetrics();
  std::shared_ptr<prometheus::Registry> registry() const { return registry_; }

  void OnNote(const core::Note& note);
  void OnJobTouched(const core::ClusterState& state, const core::JobId& job);
  // Before anybody is told of a commit: counts by state as they are now, so that a scrape shows what a client was told.
  void OnCommit(const std::vector<core::Effect>& effects, const core::ClusterState& state);
  // Gauges over the whole cluster; called at most once a second.
  void OnSample(const core::ClusterState& state, absl::Time now);
  void OnStoreWrite(double seconds, bool ok);
  void OnRecordRefused() { store_.records_refused.Increment(); }
  void SetRecordsAside(size_t count) { store_.records_aside.Set(static_cast<double>(count)); }
  void OnRpc(const std::string& method, const std::string& code, double seconds);

 private:
  struct JobSeries {
    prometheus::Gauge* step = nullptr;
    prometheus::Gauge* loss = nullptr;
    prometheus::Gauge* throughput = nullptr;
    prometheus::Gauge* idle = nullptr;
    prometheus::Gauge* checkpoint_age = nullptr;  // null before the first checkpoint
  };
  void DropJob(const core::JobId& job);
  void SampleJobs(const core::ClusterState& state, absl::Time now);
  void CountJob(const core::JobId& job, core::JobState state);
  void CountJobs(const core::ClusterState& state);
  void CountWorkers(const core::ClusterState& state);
  void SetJobs();

  std::shared_ptr<prometheus::Registry> registry_;
  JobFamilies jobs_;
  GenerationFamilies generations_;
  WorkerFamilies workers_;
  CheckpointFamilies checkpoints_;
  StoreFamilies store_;
  ProcessFamilies process_;
  std::map<core::JobState, int64_t> jobs_by_state_;
  std::map<core::JobId, core::JobState> live_;  // jobs that are not over, as counted
  std::map<core::JobId, JobSeries> series_;
  std::map<core::JobId, std::map<std::string, double>> goodput_seen_;
};

}  // namespace athanor

// The coordinator's Prometheus metrics. Label sets are bounded: `job` only for jobs that are not over, no rank label.
// Thread-safe; On…() is called on the core loop, the RPC observer on gRPC threads.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "server/core/coordinator_core.h"

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
  void OnRecordRefused() { records_refused_.Increment(); }
  void SetRecordsAside(size_t count) { records_aside_.Set(static_cast<double>(count)); }
  void OnRpc(const std::string& method, const std::string& code, double seconds);

 private:
  struct JobSeries {
    prometheus::Gauge* step = nullptr;
    prometheus::Gauge* loss = nullptr;
    prometheus::Gauge* throughput = nullptr;
    prometheus::Gauge* idle = nullptr;
    prometheus::Gauge* checkpoint_age = nullptr;  // null before the first checkpoint
    std::map<std::string, prometheus::Gauge*> goodput;
    double stall_seconds = 0;
  };
  void DropJob(const core::JobId& job);
  void SampleJobs(const core::ClusterState& state, absl::Time now);
  void CountJob(const core::JobId& job, core::JobState state);
  void CountJobs(const core::ClusterState& state);
  void CountWorkers(const core::ClusterState& state);
  void SetJobs();

  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Family<prometheus::Gauge>& workers_;
  prometheus::Family<prometheus::Gauge>& slots_;
  prometheus::Family<prometheus::Gauge>& job_step_;
  prometheus::Family<prometheus::Gauge>& job_loss_;
  prometheus::Family<prometheus::Gauge>& job_throughput_;
  prometheus::Family<prometheus::Gauge>& job_idle_;
  prometheus::Family<prometheus::Gauge>& job_checkpoint_age_;
  prometheus::Family<prometheus::Counter>& goodput_;
  prometheus::Family<prometheus::Counter>& restarts_;
  prometheus::Family<prometheus::Counter>& failures_;
  prometheus::Family<prometheus::Counter>& fenced_;
  prometheus::Family<prometheus::Counter>& jobs_ended_;
  prometheus::Family<prometheus::Histogram>& rpc_;
  prometheus::Gauge& queue_depth_;
  prometheus::Gauge& queue_oldest_;
  prometheus::Gauge& heartbeat_age_;
  prometheus::Gauge& resident_bytes_;
  prometheus::Counter& cpu_seconds_;
  prometheus::Counter& submitted_;
  prometheus::Counter& generations_;
  prometheus::Counter& lease_expiries_;
  prometheus::Counter& checkpoint_bytes_;
  prometheus::Counter& checkpoints_;
  prometheus::Counter& checkpoint_failures_;
  prometheus::Counter& checkpoint_damages_;
  prometheus::Counter& hangs_;
  prometheus::Counter& quarantines_;
  prometheus::Counter& store_errors_;
  prometheus::Counter& records_refused_;
  prometheus::Gauge& records_aside_;
  std::map<core::JobState, int64_t> jobs_by_state_;
  std::map<core::JobId, core::JobState> live_;  // jobs that are not over, as counted
  prometheus::Histogram& recovery_;
  prometheus::Histogram& queue_wait_;
  prometheus::Histogram& checkpoint_seconds_;
  prometheus::Histogram& store_write_;
  std::map<core::JobId, JobSeries> series_;
  std::map<core::JobId, std::map<std::string, double>> goodput_seen_;
};

}  // namespace athanor

#include "server/observability/metric_families.h"

namespace athanor {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

Buckets LongSeconds() {
  return {0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200};
}

prometheus::Family<prometheus::Gauge>& Gauges(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Histogram>& Histograms(prometheus::Registry& registry, const char* name,
                                                      const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace

Buckets ShortSeconds() {
  return {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
}

JobFamilies::JobFamilies(prometheus::Registry& registry)
    : by_state(Gauges(registry, "athanor_jobs", "Jobs by state")),
      step(Gauges(registry, "athanor_job_step", "Completed optimizer steps of a job that is not over")),
      loss(Gauges(registry, "athanor_job_loss", "Training loss of a job that is not over")),
      throughput(Gauges(registry, "athanor_job_samples_per_second", "Samples per second over all ranks of a job")),
      idle(Gauges(registry, "athanor_job_idle_seconds",
                  "Since a rank of a running job last advanced: a step, a batch evaluated, bytes read or written")),
      goodput(Counters(registry, "athanor_goodput_seconds_total", "Seconds of all jobs by what they went into")),
      ended(Counters(registry, "athanor_jobs_ended_total", "Jobs that ended, by final state")),
      submitted(Counters(registry, "athanor_jobs_submitted_total", "Jobs created").Add({})),
      queued(Gauges(registry, "athanor_queue_depth", "Jobs that wait for slots").Add({})),
      queued_for(Gauges(registry, "athanor_queue_oldest_seconds",
                        "How long the job that waits for slots the longest has waited")
                     .Add({})),
      queue_wait(
          Histograms(registry, "athanor_queue_wait_seconds", "Time from queued to placed").Add({}, LongSeconds())) {}

GenerationFamilies::GenerationFamilies(prometheus::Registry& registry)
    : started(Counters(registry, "athanor_generations_total", "Generations started").Add({})),
      restarts(Counters(registry, "athanor_job_restarts_total", "Restarts decided, by cause")),
      failures(
          Counters(registry, "athanor_generation_failures_total", "Generations that failed, by their first cause")),
      hangs(Counters(registry, "athanor_hangs_total", "Hangs found").Add({})),
      recovery(
          Histograms(registry, "athanor_recovery_seconds", "End of a failed generation to the first step of the next")
              .Add({}, LongSeconds())) {}

WorkerFamilies::WorkerFamilies(prometheus::Registry& registry)
    : by_state(Gauges(registry, "athanor_agents", "Agents by state")),
      slots(Gauges(registry, "athanor_slots", "Slots of agents that take ranks, by use")),
      heartbeat_age(
          Gauges(registry, "athanor_heartbeat_age_seconds", "Oldest heartbeat among agents that are not lost").Add({})),
      lease_expiries(Counters(registry, "athanor_lease_expiries_total", "Agents declared lost").Add({})),
      quarantines(
          Counters(registry, "athanor_quarantines_total", "Agents put aside because launches failed there").Add({})),
      fenced(
          Counters(registry, "athanor_fenced_messages_total", "Messages of stale generations or sessions, by kind")) {}

CheckpointFamilies::CheckpointFamilies(prometheus::Registry& registry)
    : committed(Counters(registry, "athanor_checkpoints_total", "Committed checkpoints").Add({})),
      bytes(Counters(registry, "athanor_checkpoint_bytes_total", "Bytes of committed checkpoints").Add({})),
      seconds(Histograms(registry, "athanor_checkpoint_seconds", "Snapshot to commit").Add({}, LongSeconds())),
      failures(Counters(registry, "athanor_checkpoint_failures_total", "Saves that a rank had to give up").Add({})),
      damages(Counters(registry, "athanor_checkpoint_damages_total", "Committed checkpoints found unreadable").Add({})),
      age(Gauges(registry, "athanor_job_checkpoint_age_seconds",
                 "Age of the newest checkpoint of a running job that has one")) {}

StoreFamilies::StoreFamilies(prometheus::Registry& registry)
    : write(Histograms(registry, "athanor_store_write_seconds", "Synced commits to RocksDB").Add({}, ShortSeconds())),
      errors(Counters(registry, "athanor_store_errors_total", "Failed commits to the store").Add({})),
      records_refused(Counters(registry, "athanor_store_records_refused_total",
                               "Records that could not have been read back and were not written")
                          .Add({})),
      records_aside(Gauges(registry, "athanor_store_records_put_aside",
                           "Records that could not be used and lie aside as evidence")
                        .Add({})) {}

ProcessFamilies::ProcessFamilies(prometheus::Registry& registry)
    : resident_bytes(Gauges(registry, "process_resident_memory_bytes", "Resident memory").Add({})),
      cpu_seconds(Counters(registry, "process_cpu_seconds_total", "CPU time").Add({})),
      rpc(Histograms(registry, "athanor_rpc_duration_seconds", "Duration of unary calls by method and code")) {}

}  // namespace athanor

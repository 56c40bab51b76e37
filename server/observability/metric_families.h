// The coordinator's metrics by what they speak of, with names and help as they are scraped.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

namespace athanor {

prometheus::Histogram::BucketBoundaries ShortSeconds();  // for what takes 0.2 ms to 10 s

struct JobFamilies {  // Jobs: how many, what each does, how they begin and end.
  explicit JobFamilies(prometheus::Registry& registry);
  prometheus::Family<prometheus::Gauge>& by_state;
  prometheus::Family<prometheus::Gauge>& step;
  prometheus::Family<prometheus::Gauge>& loss;
  prometheus::Family<prometheus::Gauge>& throughput;
  prometheus::Family<prometheus::Gauge>& idle;
  prometheus::Family<prometheus::Counter>& goodput;
  prometheus::Family<prometheus::Counter>& ended;
  prometheus::Counter& submitted;
  prometheus::Gauge& queued;
  prometheus::Gauge& queued_for;
  prometheus::Histogram& queue_wait;
};

struct GenerationFamilies {  // Generations: their starts, failures and recoveries.
  explicit GenerationFamilies(prometheus::Registry& registry);
  prometheus::Counter& started;
  prometheus::Family<prometheus::Counter>& restarts;
  prometheus::Family<prometheus::Counter>& failures;
  prometheus::Counter& hangs;
  prometheus::Histogram& recovery;
};

struct WorkerFamilies {  // Agents and their slots.
  explicit WorkerFamilies(prometheus::Registry& registry);
  prometheus::Family<prometheus::Gauge>& by_state;
  prometheus::Family<prometheus::Gauge>& slots;
  prometheus::Gauge& heartbeat_age;
  prometheus::Counter& lease_expiries;
  prometheus::Counter& quarantines;
  prometheus::Family<prometheus::Counter>& fenced;
};

struct CheckpointFamilies {  // Checkpoints.
  explicit CheckpointFamilies(prometheus::Registry& registry);
  prometheus::Counter& committed;
  prometheus::Counter& bytes;
  prometheus::Histogram& seconds;
  prometheus::Counter& failures;
  prometheus::Counter& damages;
  prometheus::Family<prometheus::Gauge>& age;
};

struct StoreFamilies {  // The store.
  explicit StoreFamilies(prometheus::Registry& registry);
  prometheus::Histogram& write;
  prometheus::Counter& errors;
  prometheus::Counter& records_refused;
  prometheus::Gauge& records_aside;
};

struct ProcessFamilies {  // This process, and the calls that it answers.
  explicit ProcessFamilies(prometheus::Registry& registry);
  prometheus::Gauge& resident_bytes;
  prometheus::Counter& cpu_seconds;
  prometheus::Family<prometheus::Histogram>& rpc;
};

}  // namespace athanor

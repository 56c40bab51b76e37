// The agent's Prometheus metrics. Thread-safe.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

namespace athanor::agent {

struct AgentMetrics {
  AgentMetrics();
  std::shared_ptr<prometheus::Registry> registry;
  prometheus::Gauge& ranks;
  prometheus::Gauge& slots;
  prometheus::Gauge& connected;
  prometheus::Gauge& outbox;
  prometheus::Counter& launches;
  prometheus::Counter& reconnects;
  prometheus::Counter& lease_expiries;
  prometheus::Family<prometheus::Counter>& exits;  // by cause
};

}  // namespace athanor::agent

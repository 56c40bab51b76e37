// The HTTP endpoint of a daemon: /metrics (Prometheus text), /healthz (callers are served) and /readyz, which answer
// 200, or 503 with the reason. Slow connections keep nobody waiting: http_server.h. Thread-safe.
#pragma once

#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

class MetricsEndpoint {
 public:
  // `address`: "host:port", port 0 = any free one. `healthy` is called for each /healthz and `ready` for
  // each /readyz, on the endpoint's threads.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& address,
                                                                std::shared_ptr<prometheus::Registry> registry,
                                                                std::function<absl::Status()> healthy,
                                                                std::function<absl::Status()> ready);
  virtual ~MetricsEndpoint() = default;
  virtual int port() const = 0;
};

}  // namespace athanor

#include "common/service/metrics_endpoint.h"

#include <CivetServer.h>
#include <prometheus/text_serializer.h>

#include <vector>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

void Answer(mg_connection* connection, int code, const char* reason, const char* type, const std::string& body) {
  mg_printf(connection, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", code,
            reason, type, body.size());
  mg_write(connection, body.data(), body.size());
}

class MetricsHandler : public CivetHandler {
 public:
  explicit MetricsHandler(std::shared_ptr<prometheus::Registry> registry) : registry_(std::move(registry)) {}
  bool handleGet(CivetServer*, mg_connection* connection) override {
    Answer(connection, 200, "OK", "text/plain; version=0.0.4; charset=utf-8",
           prometheus::TextSerializer().Serialize(registry_->Collect()));
    return true;
  }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

class StatusHandler : public CivetHandler {
 public:
  explicit StatusHandler(std::function<absl::Status()> check) : check_(std::move(check)) {}
  bool handleGet(CivetServer*, mg_connection* connection) override {
    const absl::Status status = check_();
    if (status.ok()) {
      Answer(connection, 200, "OK", "text/plain", "ok\n");
    } else {
      Answer(connection, 503, "Service Unavailable", "text/plain", absl::StrCat(std::string(status.message()), "\n"));
    }
    return true;
  }

 private:
  std::function<absl::Status()> check_;
};

class CivetEndpoint : public MetricsEndpoint {
 public:
  CivetEndpoint(std::shared_ptr<prometheus::Registry> registry, std::function<absl::Status()> healthy,
                std::function<absl::Status()> ready)
      : metrics_(std::move(registry)), healthy_(std::move(healthy)), ready_(std::move(ready)) {}

  absl::Status Listen(const std::string& address) {
    try {
      // A connection holds its thread until its request is there or too late: many threads, and little patience.
      server_ = std::make_unique<CivetServer>(std::vector<std::string>{
          "listening_ports", address, "num_threads", "64", "request_timeout_ms", "1000", "connection_queue", "128"});
    } catch (const CivetException& error) {
      return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address, ": ", error.what()));
    }
    server_->addHandler("/metrics", metrics_);
    server_->addHandler("/healthz", healthy_);
    server_->addHandler("/readyz", ready_);
    return absl::OkStatus();
  }

  int port() const override { return server_->getListeningPorts().at(0); }

 private:
  MetricsHandler metrics_;
  StatusHandler healthy_;
  StatusHandler ready_;
  std::unique_ptr<CivetServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& address,
                                                                        std::shared_ptr<prometheus::Registry> registry,
                                                                        std::function<absl::Status()> healthy,
                                                                        std::function<absl::Status()> ready) {
  auto endpoint = std::make_unique<CivetEndpoint>(std::move(registry), std::move(healthy), std::move(ready));
  if (absl::Status status = endpoint->Listen(address); !status.ok()) return status;
  return endpoint;
}

}  // namespace athanor

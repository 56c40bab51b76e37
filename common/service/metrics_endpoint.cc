#include "common/service/metrics_endpoint.h"

#include <prometheus/text_serializer.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "common/service/http_server.h"

namespace athanor {
namespace {

HttpAnswer StatusAnswer(const absl::Status& status) {
  if (status.ok()) return {200, "text/plain", "ok\n"};
  return {503, "text/plain", absl::StrCat(std::string(status.message()), "\n")};
}

class HttpEndpoint : public MetricsEndpoint {
 public:
  explicit HttpEndpoint(std::unique_ptr<HttpServer> server) : server_(std::move(server)) {}
  int port() const override { return server_->port(); }

 private:
  std::unique_ptr<HttpServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& address,
                                                                        std::shared_ptr<prometheus::Registry> registry,
                                                                        std::function<absl::Status()> healthy,
                                                                        std::function<absl::Status()> ready) {
  HttpServer::Handlers handlers;
  handlers["/metrics"] = [registry = std::move(registry)] {
    return HttpAnswer{200, "text/plain; version=0.0.4; charset=utf-8",
                      prometheus::TextSerializer().Serialize(registry->Collect())};
  };
  handlers["/healthz"] = [check = std::move(healthy)] { return StatusAnswer(check()); };
  handlers["/readyz"] = [check = std::move(ready)] { return StatusAnswer(check()); };
  ASSIGN_OR_RETURN(std::unique_ptr<HttpServer> server, HttpServer::Start(address, std::move(handlers)));
  return std::make_unique<HttpEndpoint>(std::move(server));
}

}  // namespace athanor

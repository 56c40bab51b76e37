// The coordinator's gRPC server with all its services, health and reflection.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/service/channel.h"
#include "server/rpc/unary_call.h"

namespace athanor {

struct GrpcServerOptions {
  std::string listen = "127.0.0.1:7070";  // port 0: any free one
  TlsFiles tls;
  std::string token_file;
  int64_t descriptor_limit = 1024;  // of this process
  bool insecure = false;            // beyond loopback without TLS and token: only when asked for
};

// INVALID_ARGUMENT: an address beyond loopback without TLS and a token. To be asked before anything is touched.
absl::Status CheckExposure(const GrpcServerOptions& options);

class GrpcServer {
 public:
  // INVALID_ARGUMENT as CheckExposure(). UNAVAILABLE: the port is taken.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options, CoreLoop* loop,
                                                           CoordinatorMetrics* metrics);
  virtual ~GrpcServer() = default;
  virtual int port() const = 0;
  // Calls GetStatus through the listening socket and the core: do callers get an answer? Blocks for at most `limit`.
  virtual absl::Status CallSelf(absl::Duration limit) const = 0;
  // Ends open streams and returns within `grace`.
  virtual void Stop(absl::Duration grace) = 0;
};

}  // namespace athanor

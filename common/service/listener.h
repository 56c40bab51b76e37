// The listening socket of a gRPC server, with an accept loop of our own (thread "athanor-accept"). gRPC gives its own
// listener up for good at the first accept that fails, for instance for want of descriptors; this one goes on.
//
// A connection that would leave fewer than `reserve` descriptors to the rest of the process is closed at once: files,
// children and the connections that are there keep working under a crowd.
//
//   grpc::ServerBuilder builder;
//   ASSIGN_OR_RETURN(auto listener, Listener::Open("127.0.0.1:0", tls, options, builder));
//   std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
//   listener->Start();
//   …
//   listener->Stop();  // then server->Shutdown(deadline)
//
// Thread-safe but for Start() and Stop().
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/service/channel.h"

namespace athanor {

struct ListenerOptions {
  int64_t descriptor_limit = 1024;  // of this process: RaiseDescriptorLimit()
  int64_t reserve = 64;             // descriptors that connections leave free; at most half of the limit
};

class Listener {
 public:
  // `address` is "host:port" (every address of the host; port 0: any free one) or "unix:/path". Registers with
  // `builder`, which needs no AddListeningPort(). INVALID_ARGUMENT: a host that does not resolve. UNAVAILABLE: the
  // address is in use.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(const std::string& address, const TlsFiles& tls,
                                                        const ListenerOptions& options, grpc::ServerBuilder& builder);
  virtual ~Listener() = default;
  virtual void Start() = 0;      // after BuildAndStart()
  virtual void Stop() = 0;       // refuses new connections; those that are there stay
  virtual int port() const = 0;  // 0 for a Unix socket
  // Connects through the listening socket as a caller does and runs `call` over this connection: does a new caller get
  // an answer? In plain text even where callers need TLS: only this process can make such a connection. Returns what
  // `call` returns, UNAVAILABLE where there is no connection within `limit`.
  using SelfCall = std::function<absl::Status(const std::shared_ptr<grpc::Channel>& channel, absl::Time deadline)>;
  virtual absl::Status CallSelf(absl::Duration limit, const SelfCall& call) = 0;
};

// The lowest descriptor number at which a connection is refused.
int64_t ConnectionCeiling(const ListenerOptions& options);

}  // namespace athanor

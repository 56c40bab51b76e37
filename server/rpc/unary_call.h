// One unary call from start to end: who may call, how long it took, exactly one Finish.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/service/grpc_status.h"
#include "server/observability/coordinator_metrics.h"
#include "server/runtime/core_loop.h"

namespace athanor {

// What every service needs. Lives as long as the server.
struct RpcContext {
  CoreLoop* loop = nullptr;
  CoordinatorMetrics* metrics = nullptr;
  std::string token;  // empty: no token is asked for
  absl::Time started_at;
  int listen_port = 0;
};

// UNAUTHENTICATED unless the call carries the token.
absl::Status Authorize(const RpcContext& rpc, const grpc::CallbackServerContext& context);

class UnaryCall {
 public:
  UnaryCall(const RpcContext& rpc, grpc::CallbackServerContext* context, const char* method)
      : rpc_(rpc), reactor_(context->DefaultReactor()), method_(method), authorized_(Authorize(rpc, *context)) {}
  const absl::Status& authorized() const { return authorized_; }
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }
  void Finish(const absl::Status& status) const {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
    rpc_.metrics->OnRpc(method_, absl::StatusCodeToString(status.code()), seconds);
    reactor_->Finish(ToGrpc(status));
  }

 private:
  const RpcContext& rpc_;
  grpc::ServerUnaryReactor* const reactor_;
  const char* const method_;
  const absl::Status authorized_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

// Runs a read on the core loop: `read(core, now)` fills the response and returns the status.
template <typename ReadFn>
grpc::ServerUnaryReactor* RunRead(const RpcContext& rpc, grpc::CallbackServerContext* context, const char* method,
                                  ReadFn read) {
  const UnaryCall call(rpc, context, method);
  if (!call.authorized().ok()) {
    call.Finish(call.authorized());
  } else {
    rpc.loop->PostRead(
        [call, read](const core::CoordinatorCore& core, absl::Time now) { call.Finish(read(core, now)); });
  }
  return call.reactor();
}

// Runs a verb: `check()` validates, `make(call id)` is the event, `fill(reply)` writes the response of a success.
template <typename CheckFn, typename MakeFn, typename FillFn>
grpc::ServerUnaryReactor* RunVerb(const RpcContext& rpc, grpc::CallbackServerContext* context, const char* method,
                                  CheckFn check, const MakeFn& make, FillFn fill) {
  const UnaryCall call(rpc, context, method);
  absl::Status status = call.authorized();
  if (status.ok()) status = check();
  if (!status.ok()) {
    call.Finish(status);
  } else {
    rpc.loop->PostVerb(make, [call, fill](const core::Reply& reply) {
      if (reply.status.ok()) fill(reply);
      call.Finish(reply.status);
    });
  }
  return call.reactor();
}

// Of a verb and its arguments: the same key with another digest is refused.
std::string RequestDigest(const char* method, const google::protobuf::MessageLite& request);

}  // namespace athanor

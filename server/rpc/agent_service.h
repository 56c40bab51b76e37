// The agents' sessions: one stream each, translated into events; what must not be lost is acknowledged after its
// commit. Messages arrive as bytes: gRPC ends a stream over one that it cannot parse without saying so.
#pragma once

#include "athanor/v1/agent_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

class AgentServiceImpl : public v1::AgentService::WithRawCallbackMethod_Session<v1::AgentService::Service> {
 public:
  explicit AgentServiceImpl(const RpcContext& rpc) : rpc_(rpc) {}
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Session(grpc::CallbackServerContext* context) override;

 private:
  const RpcContext& rpc_;
};

}  // namespace athanor

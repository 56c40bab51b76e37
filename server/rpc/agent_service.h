// The agents' sessions: one stream each, translated into events; what must not be lost is acknowledged after its
// commit.
#pragma once

#include "athanor/v1/agent_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

class AgentServiceImpl : public v1::AgentService::CallbackService {
 public:
  explicit AgentServiceImpl(const RpcContext& rpc) : rpc_(rpc) {}
  grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  const RpcContext& rpc_;
};

}  // namespace athanor

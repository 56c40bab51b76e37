// One ReadLogs stream: one or all ranks, one or all generations, following over restarts. Reads are asked from the
// agents that ran the ranks; while one chunk goes to the client the next is on its way. A stream that waits for output
// holds no thread: it is woken by the agent's answer, by the client, or by a timer.
#pragma once

#include "athanor/v1/job_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

grpc::ServerWriteReactor<v1::LogChunk>* StartLogStream(const RpcContext& rpc, grpc::CallbackServerContext* context,
                                                       const v1::ReadLogsRequest& request);

}  // namespace athanor

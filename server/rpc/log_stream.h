// One ReadLogs stream: one or all ranks, one or all generations, following over restarts. Reads are asked from the
// agents that ran the ranks, 64 KiB at a time, each after the client took the one before.
#pragma once

#include "athanor/v1/job_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

grpc::ServerWriteReactor<v1::LogChunk>* StartLogStream(const RpcContext& rpc, const absl::Status& authorized,
                                                       const v1::ReadLogsRequest& request);

}  // namespace athanor

// One WatchJob stream. The reactor deletes itself when the stream is done.
#pragma once

#include "athanor/v1/job_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

grpc::ServerWriteReactor<v1::WatchJobResponse>* StartWatch(const RpcContext& rpc, grpc::CallbackServerContext* context,
                                                           const v1::WatchJobRequest& request);

}  // namespace athanor

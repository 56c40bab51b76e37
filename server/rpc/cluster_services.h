// CheckpointService, WorkerService and ClusterService. Thread-safe; never block.
#pragma once

#include "athanor/v1/job_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

class CheckpointServiceImpl : public v1::CheckpointService::CallbackService {
 public:
  explicit CheckpointServiceImpl(const RpcContext& rpc) : rpc_(rpc) {}
  using Context = grpc::CallbackServerContext;
  grpc::ServerUnaryReactor* ListCheckpoints(Context* context, const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override;
  grpc::ServerUnaryReactor* GetCheckpoint(Context* context, const v1::GetCheckpointRequest* request,
                                          v1::Checkpoint* response) override;
  grpc::ServerUnaryReactor* TagCheckpoint(Context* context, const v1::TagCheckpointRequest* request,
                                          v1::Checkpoint* response) override;
  grpc::ServerUnaryReactor* UntagCheckpoint(Context* context, const v1::UntagCheckpointRequest* request,
                                            v1::Checkpoint* response) override;
  grpc::ServerUnaryReactor* DeleteCheckpoint(Context* context, const v1::DeleteCheckpointRequest* request,
                                             v1::DeleteCheckpointResponse* response) override;

 private:
  const RpcContext& rpc_;
};

class WorkerServiceImpl : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerServiceImpl(const RpcContext& rpc) : rpc_(rpc) {}
  using Context = grpc::CallbackServerContext;
  grpc::ServerUnaryReactor* ListWorkers(Context* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(Context* context, const v1::WorkerVerbRequest* request,
                                        v1::Worker* response) override;
  grpc::ServerUnaryReactor* UndrainWorker(Context* context, const v1::WorkerVerbRequest* request,
                                          v1::Worker* response) override;

 private:
  const RpcContext& rpc_;
};

class ClusterServiceImpl : public v1::ClusterService::CallbackService {
 public:
  explicit ClusterServiceImpl(const RpcContext& rpc) : rpc_(rpc) {}
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::ClusterStatus* response) override;

 private:
  const RpcContext& rpc_;
};

}  // namespace athanor

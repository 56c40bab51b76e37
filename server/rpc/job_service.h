// athanor.v1.JobService: validates, turns requests into events and answers. Thread-safe; never blocks.
#pragma once

#include "athanor/v1/job_service.grpc.pb.h"
#include "server/rpc/unary_call.h"

namespace athanor {

class JobServiceImpl : public v1::JobService::CallbackService {
 public:
  explicit JobServiceImpl(const RpcContext& rpc) : rpc_(rpc) {}
  using Context = grpc::CallbackServerContext;
  grpc::ServerUnaryReactor* SubmitJob(Context* context, const v1::SubmitJobRequest* request,
                                      v1::SubmitJobResponse* response) override;
  grpc::ServerUnaryReactor* GetJob(Context* context, const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(Context* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(Context* context,
                                                           const v1::WatchJobRequest* request) override;
  grpc::ServerUnaryReactor* CancelJob(Context* context, const v1::JobVerbRequest* request,
                                      v1::JobVerbResponse* response) override;
  grpc::ServerUnaryReactor* SuspendJob(Context* context, const v1::JobVerbRequest* request,
                                       v1::JobVerbResponse* response) override;
  grpc::ServerUnaryReactor* ResumeJob(Context* context, const v1::JobVerbRequest* request,
                                      v1::JobVerbResponse* response) override;
  grpc::ServerUnaryReactor* DeleteJob(Context* context, const v1::JobVerbRequest* request,
                                      v1::JobVerbResponse* response) override;
  grpc::ServerWriteReactor<v1::LogChunk>* ReadLogs(Context* context, const v1::ReadLogsRequest* request) override;
  grpc::ServerUnaryReactor* ListEvents(Context* context, const v1::ListEventsRequest* request,
                                       v1::ListEventsResponse* response) override;
  grpc::ServerUnaryReactor* ExplainJob(Context* context, const v1::GetJobRequest* request,
                                       v1::ExplainJobResponse* response) override;

 private:
  const RpcContext& rpc_;
};

}  // namespace athanor

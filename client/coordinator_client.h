// A typed client of the coordinator. Every call has a deadline; UNAVAILABLE is tried again inside it, with the same
// request key.
//
//   ASSIGN_OR_RETURN(auto client, CoordinatorClient::Connect("127.0.0.1:7070", {}, absl::Seconds(30)));
//   ASSIGN_OR_RETURN(v1::Job job, client->Call(&v1::JobService::Stub::GetJob, request));
//
// Thread-safe.
#pragma once

#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "athanor/v1/job_service.grpc.pb.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"

namespace athanor {

class CoordinatorClient {
 public:
  static absl::StatusOr<std::unique_ptr<CoordinatorClient>> Connect(const std::string& address,
                                                                    const ChannelOptions& options,
                                                                    absl::Duration timeout);

  v1::JobService::Stub& jobs() { return *jobs_; }
  v1::CheckpointService::Stub& checkpoints() { return *checkpoints_; }
  v1::WorkerService::Stub& workers() { return *workers_; }
  v1::ClusterService::Stub& cluster() { return *cluster_; }
  absl::Duration timeout() const { return timeout_; }

  // One unary call: `method` is a member of the stub.
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    const absl::Time deadline = absl::Now() + timeout_;
    return Retry(deadline, [&] {
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(deadline));
      return FromGrpc((stub.*method)(&context, request, response));
    });
  }

  // Calls `on_update` for each message until the job is over, `on_update` returns false, or the coordinator is
  // unreachable for the timeout. Survives restarts of the coordinator without losing an event.
  absl::Status Watch(const std::string& job, int64_t after_event,
                     const std::function<bool(const v1::WatchJobResponse&)>& on_update);
  absl::Status ReadLogs(const v1::ReadLogsRequest& request, const std::function<bool(const v1::LogChunk&)>& on_chunk);

  static std::string NewRequestKey();

 private:
  CoordinatorClient(std::shared_ptr<grpc::Channel> channel, absl::Duration timeout);
  absl::Status Retry(absl::Time deadline, const std::function<absl::Status()>& attempt);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::JobService::Stub> jobs_;
  const std::unique_ptr<v1::CheckpointService::Stub> checkpoints_;
  const std::unique_ptr<v1::WorkerService::Stub> workers_;
  const std::unique_ptr<v1::ClusterService::Stub> cluster_;
  const absl::Duration timeout_;
};

}  // namespace athanor

// A typed client of the coordinator. Every call has a deadline; UNAVAILABLE is tried again inside it, with the same
// request key. Errors of the connection say what listens at the address.
//
//   ASSIGN_OR_RETURN(auto client, CoordinatorClient::Connect("127.0.0.1:7070", {.timeout = absl::Seconds(30)}));
//   v1::Job job;
//   RETURN_IF_ERROR(client->Call(client->jobs(), &v1::JobService::Stub::GetJob, request, &job));
//
// Thread-safe.
#pragma once

#include <grpcpp/client_context.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "athanor/v1/job_service.grpc.pb.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"
#include "common/service/message_text.h"

namespace athanor {

struct ClientOptions {
  ChannelOptions channel;
  absl::Duration timeout = absl::Seconds(30);
  // Called with what the coordinator has to say beside an answer: a name that stands for several jobs.
  std::function<void(const std::string&)> on_note;
};

// Ends the stream that is open, and those opened later, from another thread.
class Cancellation {
 public:
  void Cancel();
  bool cancelled() const { return cancelled_; }

  // Registers a stream while it lives.
  class Stream {
   public:
    Stream(Cancellation* cancellation, grpc::ClientContext* context);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

   private:
    Cancellation* const cancellation_;
  };

 private:
  std::mutex mutex_;
  grpc::ClientContext* open_ = nullptr;
  std::atomic<bool> cancelled_{false};
};

struct WatchOptions {
  int64_t after_event = 0;
  absl::Time deadline = absl::InfiniteFuture();
  Cancellation* cancellation = nullptr;
};

class CoordinatorClient {
 public:
  static absl::StatusOr<std::unique_ptr<CoordinatorClient>> Connect(const std::string& address, ClientOptions options);

  v1::JobService::Stub& jobs() { return *jobs_; }
  v1::CheckpointService::Stub& checkpoints() { return *checkpoints_; }
  v1::WorkerService::Stub& workers() { return *workers_; }
  v1::ClusterService::Stub& cluster() { return *cluster_; }

  // One unary call: `method` is a member of the stub. INVALID_ARGUMENT names a field that is no UTF-8, before anything
  // is sent.
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    if (absl::Status status = CheckUtf8(request); !status.ok()) return status;
    const absl::Time deadline = absl::Now() + options_.timeout;
    return Retry(deadline, [&] {
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(deadline));
      const absl::Status status = FromGrpc((stub.*method)(&context, request, response));
      if (status.ok()) PassNote(context);
      return status;
    });
  }

  // Calls `on_update` for each message until the job is over, `on_update` returns false, it is cancelled (OK), the
  // deadline passes (DEADLINE_EXCEEDED), or the coordinator is unreachable for the timeout. Survives restarts of the
  // coordinator without losing an event.
  absl::Status Watch(const std::string& job, const WatchOptions& options,
                     const std::function<bool(const v1::WatchJobResponse&)>& on_update);
  absl::Status ReadLogs(const v1::ReadLogsRequest& request, Cancellation* cancellation,
                        const std::function<bool(const v1::LogChunk&)>& on_chunk);

  static std::string NewRequestKey();
  // INVALID_ARGUMENT "labels[team]: byte 3 is not UTF-8" for the first text of `message` that is not; values of `env`
  // are not shown.
  static absl::Status CheckUtf8(const google::protobuf::Message& message);

 private:
  CoordinatorClient(std::string address, std::shared_ptr<grpc::Channel> channel, ClientOptions options);
  absl::Status Retry(absl::Time deadline, const std::function<absl::Status()>& attempt);
  void PassNote(const grpc::ClientContext& context) const;
  // For people: who did not answer, and why as far as it can be seen.
  absl::Status Explain(const absl::Status& status) const;
  // Not empty when the two sides speak plain text and TLS: trying again cannot help.
  std::string Mismatch() const;

  const std::string address_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::JobService::Stub> jobs_;
  const std::unique_ptr<v1::CheckpointService::Stub> checkpoints_;
  const std::unique_ptr<v1::WorkerService::Stub> workers_;
  const std::unique_ptr<v1::ClusterService::Stub> cluster_;
  const ClientOptions options_;
};

}  // namespace athanor

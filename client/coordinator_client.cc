#include "client/coordinator_client.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50), kLongestPause = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorClient>> CoordinatorClient::Connect(const std::string& address,
                                                                              const ChannelOptions& options,
                                                                              absl::Duration timeout) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(address, options));
  return std::unique_ptr<CoordinatorClient>(new CoordinatorClient(std::move(channel), timeout));
}

CoordinatorClient::CoordinatorClient(std::shared_ptr<grpc::Channel> channel, absl::Duration timeout)
    : channel_(std::move(channel)),
      jobs_(v1::JobService::NewStub(channel_)),
      checkpoints_(v1::CheckpointService::NewStub(channel_)),
      workers_(v1::WorkerService::NewStub(channel_)),
      cluster_(v1::ClusterService::NewStub(channel_)),
      timeout_(timeout) {}

std::string CoordinatorClient::NewRequestKey() {
  std::random_device device;
  return absl::StrFormat("cli-%08x%08x%08x", device(), device(), device());
}

absl::Status CoordinatorClient::Retry(absl::Time deadline, const std::function<absl::Status()>& attempt) {
  absl::Duration pause = kFirstPause;
  while (true) {
    const absl::Status status = attempt();
    if (!absl::IsUnavailable(status) || absl::Now() + pause >= deadline) return status;
    // Wakes early when the connection is back.
    channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + pause));
    pause = std::min(pause * 2, kLongestPause);
  }
}

absl::Status CoordinatorClient::Watch(const std::string& job, int64_t after_event,
                                      const std::function<bool(const v1::WatchJobResponse&)>& on_update) {
  absl::Time heard = absl::Now();
  while (true) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_job(job);
    request.set_after_event(after_event);
    const auto stream = jobs_->WatchJob(&context, request);
    v1::WatchJobResponse update;
    while (stream->Read(&update)) {
      heard = absl::Now();
      for (const v1::JobEvent& event : update.events()) after_event = std::max(after_event, event.sequence());
      if (!on_update(update) || update.final()) {
        context.TryCancel();
        return absl::OkStatus();
      }
    }
    const absl::Status status = FromGrpc(stream->Finish());
    const bool passing = absl::IsUnavailable(status) || absl::IsCancelled(status) || status.ok();
    if (!passing || absl::Now() - heard > timeout_)
      return status.ok() ? absl::UnavailableError("the coordinator ended the stream") : status;
    channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + kFirstPause * 4));
  }
}

absl::Status CoordinatorClient::ReadLogs(const v1::ReadLogsRequest& request,
                                         const std::function<bool(const v1::LogChunk&)>& on_chunk) {
  grpc::ClientContext context;
  if (!request.follow()) context.set_deadline(absl::ToChronoTime(absl::Now() + std::max(timeout_, absl::Minutes(5))));
  const auto stream = jobs_->ReadLogs(&context, request);
  v1::LogChunk chunk;
  while (stream->Read(&chunk)) {
    if (!on_chunk(chunk)) {
      context.TryCancel();
      break;
    }
  }
  const absl::Status status = FromGrpc(stream->Finish());
  return absl::IsCancelled(status) ? absl::OkStatus() : status;
}

}  // namespace athanor

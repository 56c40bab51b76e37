#include "client/coordinator_client.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "common/service/listener_probe.h"
#include "common/service/message_text.h"
#include "common/service/note_header.h"

namespace athanor {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50), kLongestPause = absl::Seconds(1);
constexpr absl::Duration kLongestLog = absl::Hours(1);

}  // namespace

void Cancellation::Cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (open_ != nullptr) open_->TryCancel();
}

Cancellation::Stream::Stream(Cancellation* cancellation, grpc::ClientContext* context) : cancellation_(cancellation) {
  if (cancellation_ == nullptr) return;
  std::lock_guard lock(cancellation_->mutex_);
  cancellation_->open_ = context;
  if (cancellation_->cancelled_) context->TryCancel();
}

Cancellation::Stream::~Stream() {
  if (cancellation_ == nullptr) return;
  std::lock_guard lock(cancellation_->mutex_);
  cancellation_->open_ = nullptr;
}

absl::StatusOr<std::unique_ptr<CoordinatorClient>> CoordinatorClient::Connect(const std::string& address,
                                                                              ClientOptions options) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(address, options.channel));
  return std::unique_ptr<CoordinatorClient>(new CoordinatorClient(address, std::move(channel), std::move(options)));
}

CoordinatorClient::CoordinatorClient(std::string address, std::shared_ptr<grpc::Channel> channel, ClientOptions options)
    : address_(std::move(address)),
      channel_(std::move(channel)),
      jobs_(v1::JobService::NewStub(channel_)),
      checkpoints_(v1::CheckpointService::NewStub(channel_)),
      workers_(v1::WorkerService::NewStub(channel_)),
      cluster_(v1::ClusterService::NewStub(channel_)),
      options_(std::move(options)) {}

std::string CoordinatorClient::NewRequestKey() {
  std::random_device device;
  return absl::StrFormat("cli-%08x%08x%08x", device(), device(), device());
}

absl::Status CoordinatorClient::CheckUtf8(const google::protobuf::Message& message) {
  const std::string found = FindInvalidText(message);
  if (found.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(found, " is not UTF-8; allowed: UTF-8 text"));
}

void CoordinatorClient::PassNote(const grpc::ClientContext& context) const {
  const auto& headers = context.GetServerInitialMetadata();
  const auto note = headers.find(kNoteHeader);
  if (note != headers.end() && options_.on_note)
    options_.on_note(std::string(note->second.data(), note->second.size()));
}

std::string CoordinatorClient::Mismatch() const {
  return TransportMismatch(address_, options_.channel.tls.enabled(), "this command");
}

absl::Status CoordinatorClient::Explain(const absl::Status& status) const {
  const std::string said(status.message());
  if (absl::IsDeadlineExceeded(status))
    return absl::DeadlineExceededError(absl::StrCat("coordinator ", address_, " did not answer within ",
                                                    absl::FormatDuration(options_.timeout), " (--timeout)"));
  if (absl::IsUnauthenticated(status) && !options_.channel.token_file.empty())
    return absl::UnauthenticatedError(absl::StrCat(said, " (token of ", options_.channel.token_file, ")"));
  if (!absl::IsUnavailable(status)) return status;
  if (absl::StrContains(said, "certificate verify failed"))
    return absl::UnavailableError(absl::StrCat(
        "coordinator ", address_, ": its certificate does not stand the check against ",
        options_.channel.tls.ca.empty() ? "this machine's authorities" : options_.channel.tls.ca, ": ", said));
  if (options_.channel.tls.enabled() && options_.channel.tls.certificate.empty())
    return absl::UnavailableError(absl::StrCat("coordinator ", address_, ": ", said,
                                               "; does it ask for a client's certificate? (--tls-certificate)"));
  return absl::UnavailableError(
      absl::StrCat("coordinator ", address_, ": ", said, "; is athanord running there? (--server)"));
}

absl::Status CoordinatorClient::Retry(absl::Time deadline, const std::function<absl::Status()>& attempt) {
  absl::Duration pause = kFirstPause;
  for (bool first = true;; first = false) {
    const absl::Status status = attempt();
    if (first && absl::IsUnavailable(status)) {
      if (const std::string mismatch = Mismatch(); !mismatch.empty()) return absl::UnavailableError(mismatch);
    }
    const bool lasting = absl::StrContains(status.message(), "certificate verify failed");
    if (!absl::IsUnavailable(status) || lasting || absl::Now() + pause >= deadline) return Explain(status);
    // Wakes early when the connection is back.
    channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + pause));
    pause = std::min(pause * 2, kLongestPause);
  }
}

absl::Status CoordinatorClient::Watch(const std::string& job, const WatchOptions& options,
                                      const std::function<bool(const v1::WatchJobResponse&)>& on_update) {
  v1::WatchJobRequest request;
  request.set_job(job);
  request.set_after_event(options.after_event);
  RETURN_IF_ERROR(CheckUtf8(request));
  absl::Time lost = absl::Now();
  for (bool first = true;; first = false) {
    grpc::ClientContext context;
    if (options.deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(options.deadline));
    const Cancellation::Stream open(options.cancellation, &context);
    const auto stream = jobs_->WatchJob(&context, request);
    v1::WatchJobResponse update;
    bool begun = false;
    for (; stream->Read(&update); begun = true) {
      if (!begun && first) PassNote(context);
      if (update.has_job()) request.set_job(update.job().id());  // a name might stand for another job after a while
      for (const v1::JobEvent& event : update.events())
        request.set_after_event(std::max(request.after_event(), event.sequence()));
      if (!on_update(update) || update.final()) {
        context.TryCancel();
        return absl::OkStatus();
      }
    }
    const absl::Status status = FromGrpc(stream->Finish());
    if (begun) lost = absl::Now();
    if (options.cancellation != nullptr && options.cancellation->cancelled()) return absl::OkStatus();
    if (absl::Now() >= options.deadline) return absl::DeadlineExceededError("the deadline passed");
    if (first && absl::IsUnavailable(status)) {
      if (const std::string mismatch = Mismatch(); !mismatch.empty()) return absl::UnavailableError(mismatch);
    }
    const bool passing = absl::IsUnavailable(status) || absl::IsCancelled(status) || status.ok();
    if (!passing || absl::Now() - lost > options_.timeout)
      return Explain(status.ok() ? absl::UnavailableError("the coordinator ended the stream") : status);
    channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + kFirstPause * 4));
  }
}

absl::Status CoordinatorClient::ReadLogs(const v1::ReadLogsRequest& request, Cancellation* cancellation,
                                         const std::function<bool(const v1::LogChunk&)>& on_chunk) {
  RETURN_IF_ERROR(CheckUtf8(request));
  bool begun = false;
  absl::Status broken;
  // Before the first chunk it is a call as any other: a connection that fails is tried again.
  const absl::Status called = Retry(absl::Now() + options_.timeout, [&]() -> absl::Status {
    grpc::ClientContext context;
    if (!request.follow()) context.set_deadline(absl::ToChronoTime(absl::Now() + kLongestLog));
    const Cancellation::Stream open(cancellation, &context);
    const auto stream = jobs_->ReadLogs(&context, request);
    v1::LogChunk chunk;
    for (; stream->Read(&chunk); begun = true) {
      if (!begun) PassNote(context);
      if (!on_chunk(chunk)) {
        context.TryCancel();
        break;
      }
    }
    const absl::Status status = FromGrpc(stream->Finish());
    if (absl::IsCancelled(status) || (cancellation != nullptr && cancellation->cancelled())) return absl::OkStatus();
    if (!begun || !absl::IsUnavailable(status)) return status;
    broken = absl::UnavailableError(absl::StrCat("coordinator ", address_, ": the logs broke off: ", status.message()));
    return absl::OkStatus();
  });
  return called.ok() ? broken : called;
}

}  // namespace athanor

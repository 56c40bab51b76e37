#include "server/rpc/agent_service.h"

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/service/logging_setup.h"
#include "common/service/protocol_version.h"
#include "common/service/unreadable_message.h"
#include "server/convert/agent_messages.h"
#include "server/rpc/request_validation.h"
#include "server/runtime/agent_sessions.h"

namespace athanor {
namespace {

constexpr size_t kOutboxLimit = 8192;

class SessionReactor;

// The half that the session table holds; it outlives the reactor.
class StreamHandle : public AgentStream {
 public:
  explicit StreamHandle(SessionReactor* reactor) : reactor_(reactor) {}
  void Send(v1::CoordinatorMessage message) override;
  void Close(const absl::Status& status) override;
  void Detach() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
  }

 private:
  std::mutex mutex_;
  SessionReactor* reactor_;
};

grpc::ByteBuffer ToBytes(const v1::CoordinatorMessage& message) {
  grpc::ByteBuffer bytes;
  bool own = false;
  grpc::SerializationTraits<v1::CoordinatorMessage>::Serialize(message, &bytes, &own);
  return bytes;
}

class SessionReactor : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit SessionReactor(CoreLoop* loop) : loop_(loop), handle_(std::make_shared<StreamHandle>(this)) {
    session_ = loop_->sessions().Open(handle_);
  }
  void Begin(const absl::Status& authorized) {
    if (!authorized.ok()) return Close(authorized);
    StartRead(&bytes_);
  }

  void Send(v1::CoordinatorMessage message) {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    if (message.has_registered()) accepted_ = true;
    if (outbox_.size() >= kOutboxLimit)
      return FinishLocked(absl::ResourceExhaustedError("the agent does not read its commands"));
    outbox_.push_back(ToBytes(message));
    if (outbox_.size() == 1) StartWrite(&outbox_.front());
  }
  void Close(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    closing_ = status;
    if (outbox_.empty()) FinishLocked(status);  // else after the last queued message
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    if (!ok) return FinishLocked(absl::UnavailableError("the stream is broken"));
    outbox_.pop_front();
    if (!outbox_.empty()) {
      if (!finished_) StartWrite(&outbox_.front());
    } else if (!closing_.ok()) {
      FinishLocked(closing_);
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) return Close(absl::CancelledError("the agent closed its stream"));
    absl::Status status = Parse();
    if (status.ok()) status = Take();
    if (!status.ok()) return Close(status);
    StartRead(&bytes_);
  }
  void OnCancel() override { Close(absl::CancelledError("the agent went away")); }
  void OnDone() override {
    handle_->Detach();
    loop_->sessions().Remove(session_);
    if (!worker_.empty()) loop_->Post(core::SessionLost{session_, worker_, unreadable_});
    delete this;
  }

 private:
  void FinishLocked(const absl::Status& status) {
    if (finished_) return;
    finished_ = true;
    Finish(ToGrpc(status));
  }

  absl::Status Parse() {
    ++messages_;
    grpc::ByteBuffer bytes = bytes_;  // shares the slices
    if (grpc::SerializationTraits<v1::AgentMessage>::Deserialize(&bytes_, &incoming_).ok()) return absl::OkStatus();
    grpc::Slice text;
    const std::string why =
        bytes.DumpToSingleSlice(&text).ok()
            ? WhyUnreadable(*v1::AgentMessage::descriptor(), {reinterpret_cast<const char*>(text.begin()), text.size()})
            : "";
    unreadable_ = absl::StrCat("message ", messages_, " of the session (", bytes.Length(), " bytes) cannot be read",
                               why.empty() ? "" : ": ", why);
    Log(spdlog::level::warn, "AgentMessageRefused", {{"worker", worker_.str()}, {"session", absl::StrCat(session_)}},
        unreadable_);
    return absl::InvalidArgumentError(unreadable_);
  }

  // Translates one message. A broken one ends the stream: agent and coordinator are one product.
  absl::Status Take() {
    if (incoming_.has_register_()) {
      if (!worker_.empty()) return absl::FailedPreconditionError("a session registers once");
      return TakeRegister(incoming_.register_());
    }
    if (worker_.empty()) return absl::FailedPreconditionError("the first message of a session is Register");
    // What is not accepted speaks for no worker.
    if (!accepted_) return absl::FailedPreconditionError("an agent speaks when it has been accepted");
    std::function<void()> ack;
    if (const uint64_t sequence = incoming_.sequence(); sequence != 0) {
      ack = [handle = handle_, sequence] {
        v1::CoordinatorMessage message;
        message.mutable_ack()->set_sequence(sequence);
        handle->Send(std::move(message));
      };
    }
    switch (incoming_.body_case()) {
      case v1::AgentMessage::kHeartbeat:
        TakeHeartbeat();
        return absl::OkStatus();
      case v1::AgentMessage::kCall:
        return TakeCall(ack);
      case v1::AgentMessage::kLogData:
        loop_->sessions().OnLogData(incoming_.log_data());
        return absl::OkStatus();
      default:
        return Post(/*call=*/0, ack);
    }
  }

  absl::Status Post(core::CallId call, std::function<void()> done) {
    std::optional<core::Event> event = EventOf(incoming_, session_, worker_, call);
    if (!event.has_value()) return absl::InvalidArgumentError("a message or a rank's call without a body");
    loop_->Post(*std::move(event), std::move(done));
    return absl::OkStatus();
  }

  absl::Status TakeRegister(const v1::Register& message) {
    if (message.protocol() != kProtocolVersion) {
      v1::CoordinatorMessage refused;
      const std::string reason = absl::StrCat("protocol: the agent (version ", message.version(), ") speaks ",
                                              message.protocol(), ", this coordinator ", kProtocolVersion);
      refused.mutable_refused()->set_reason(reason);
      Send(std::move(refused));
      return absl::FailedPreconditionError(reason);
    }
    if (absl::Status status = CheckRegister(message); !status.ok()) {
      v1::CoordinatorMessage refused;
      refused.mutable_refused()->set_reason(std::string(status.message()));
      Send(std::move(refused));
      return status;
    }
    worker_ = core::WorkerId(message.worker());
    loop_->Post(EventOf(message, session_));
    return absl::OkStatus();
  }

  void TakeHeartbeat() {
    const v1::Heartbeat& message = incoming_.heartbeat();
    const auto acknowledge = [handle = handle_, number = message.number()] {
      v1::CoordinatorMessage ack;
      ack.mutable_heartbeat_ack()->set_number(number);
      handle->Send(std::move(ack));
    };
    // While the store is full nothing is decided, and nobody's lease ends: training goes on. Heartbeats come again, so
    // that they need not pile up in the queue.
    if (!message.leaving() && !loop_->StoreStatus().ok()) return acknowledge();
    (void)Post(/*call=*/0, acknowledge);  // it has a body
  }

  absl::Status TakeCall(const std::function<void()>& ack) {
    const v1::RankCall& call = incoming_.call();
    const core::CallId held = loop_->calls().NewId();
    loop_->sessions().HoldRankCall(held, session_, call.call());
    if (absl::Status status = CheckRankCall(call); !status.ok()) {
      v1::RankCallReply refused;
      refused.set_code(static_cast<int32_t>(status.code()));
      refused.set_message(std::string(status.message()));
      loop_->sessions().AnswerRankCall(held, std::move(refused));
      if (ack) ack();
      return absl::OkStatus();
    }
    return Post(held, ack);
  }

  CoreLoop* const loop_;
  const std::shared_ptr<StreamHandle> handle_;
  core::SessionId session_ = 0;
  core::WorkerId worker_;
  grpc::ByteBuffer bytes_;
  v1::AgentMessage incoming_;
  int64_t messages_ = 0;
  std::string unreadable_;  // the last message, when it was none
  std::mutex mutex_;
  std::deque<grpc::ByteBuffer> outbox_;
  absl::Status closing_;
  bool finished_ = false;
  std::atomic<bool> accepted_{false};
};

void StreamHandle::Send(v1::CoordinatorMessage message) {
  std::lock_guard lock(mutex_);
  if (reactor_ != nullptr) reactor_->Send(std::move(message));
}

void StreamHandle::Close(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (reactor_ != nullptr) reactor_->Close(status);
}

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* AgentServiceImpl::Session(
    grpc::CallbackServerContext* context) {
  auto* reactor = new SessionReactor(rpc_.loop);
  reactor->Begin(Authorize(rpc_, *context));
  return reactor;
}

}  // namespace athanor

#include "worker/agent/coordinator_session.h"

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "athanor/base/status_macros.h"
#include "athanor/v1/agent_service.grpc.pb.h"
#include "common/service/grpc_status.h"
#include "common/service/message_text.h"

namespace athanor::agent {
namespace {

constexpr size_t kOutboxLimit = 65536;

class SessionImpl;

class StreamReactor : public grpc::ClientBidiReactor<v1::AgentMessage, v1::CoordinatorMessage> {
 public:
  StreamReactor(SessionImpl* owner, uint64_t number) : owner_(owner), number_(number) {}
  void Begin(v1::AgentService::Stub& stub) {
    stub.async()->Session(&context_, this);
    StartRead(&incoming_);
    StartCall();
  }
  void Send(v1::AgentMessage message) {
    std::lock_guard lock(mutex_);
    if (broken_) return;
    if (outbox_.size() >= kOutboxLimit) {
      broken_ = true;
      return context_.TryCancel();
    }
    outbox_.push_back(std::move(message));
    if (outbox_.size() == 1) StartWrite(&outbox_.front());
  }
  void Cancel() { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    if (!ok) {
      broken_ = true;
      return;
    }
    outbox_.pop_front();
    if (!outbox_.empty()) StartWrite(&outbox_.front());
  }
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  SessionImpl* const owner_;
  const uint64_t number_;
  grpc::ClientContext context_;
  v1::CoordinatorMessage incoming_;
  std::mutex mutex_;
  std::deque<v1::AgentMessage> outbox_;
  bool broken_ = false;
};

class SessionImpl : public CoordinatorSession {
 public:
  SessionImpl(std::shared_ptr<grpc::Channel> channel, Handlers handlers)
      : stub_(v1::AgentService::NewStub(std::move(channel))), handlers_(std::move(handlers)) {}
  ~SessionImpl() override {
    Close();
    std::unique_lock lock(mutex_);
    ended_.wait_for(lock, std::chrono::seconds(2), [this] { return live_ == 0; });
  }

  uint64_t Open() override {
    std::lock_guard lock(mutex_);
    const uint64_t number = ++number_;
    current_ = new StreamReactor(this, number);
    ++live_;
    current_->Begin(*stub_);
    return number;
  }
  void Send(uint64_t session, v1::AgentMessage message) override {
    MakeTextValid(&message);
    std::lock_guard lock(mutex_);
    if (current_ != nullptr && session == number_) current_->Send(std::move(message));
  }
  void Close() override {
    std::lock_guard lock(mutex_);
    if (current_ != nullptr) current_->Cancel();
  }

  void Message(uint64_t number, const v1::CoordinatorMessage& message) { handlers_.on_message(number, message); }
  void Ended(StreamReactor* reactor, uint64_t number, const absl::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (current_ == reactor) current_ = nullptr;
    }
    handlers_.on_closed(number, status);
    delete reactor;
    std::lock_guard lock(mutex_);
    --live_;
    ended_.notify_all();
  }

 private:
  const std::unique_ptr<v1::AgentService::Stub> stub_;
  const Handlers handlers_;
  std::mutex mutex_;
  std::condition_variable ended_;
  StreamReactor* current_ = nullptr;
  uint64_t number_ = 0;
  int live_ = 0;
};

void StreamReactor::OnReadDone(bool ok) {
  if (!ok) return;
  owner_->Message(number_, incoming_);
  incoming_.Clear();
  StartRead(&incoming_);
}

void StreamReactor::OnDone(const grpc::Status& status) {
  owner_->Ended(this, number_, FromGrpc(status));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorSession>> CoordinatorSession::Create(const std::string& address,
                                                                               const ChannelOptions& options,
                                                                               Handlers handlers) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, MakeChannel(address, options));
  return std::make_unique<SessionImpl>(std::move(channel), std::move(handlers));
}

}  // namespace athanor::agent

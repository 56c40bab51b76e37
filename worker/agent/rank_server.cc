#include "worker/agent/rank_server.h"

#include <grpcpp/client_context.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>

#include "athanor/base/status_macros.h"
#include "athanor/v1/trainer_service.grpc.pb.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"
#include "common/service/unreadable_requests.h"
#include "worker/agent/agent_clock.h"

namespace athanor::agent {
namespace {

constexpr size_t kSocketPathLimit = 100;

class ControlReactor;

class RankServerImpl : public RankServer, public v1::TrainerService::CallbackService {
 public:
  explicit RankServerImpl(Handlers handlers) : handlers_(std::move(handlers)) {}
  ~RankServerImpl() override { Close(); }

  absl::Status Listen(const std::string& directory, const ListenerOptions& options) {
    socket_path_ = directory + "/agent.sock";
    if (socket_path_.size() > kSocketPathLimit) {
      const char* runtime = std::getenv("XDG_RUNTIME_DIR");
      std::string pattern = std::string(runtime != nullptr && *runtime != '\0' ? runtime : "/tmp") + "/athanor-XXXXXX";
      if (mkdtemp(pattern.data()) == nullptr)
        return absl::ResourceExhaustedError("cannot create a folder for the socket: " + pattern);
      own_directory_ = pattern;
      socket_path_ = own_directory_ + "/agent.sock";
    }
    unlink(socket_path_.c_str());
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    NameUnreadableRequests(builder);
    builder.SetMaxReceiveMessageSize(kMaxRankMessageBytes);  // it travels on inside a message of ours
    ASSIGN_OR_RETURN(listener_, Listener::Open("unix:" + socket_path_, {}, options, builder));
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::UnavailableError("cannot serve on " + socket_path_);
    listener_->Start();
    return absl::OkStatus();
  }

  const std::string& socket_path() const override { return socket_path_; }
  void Answer(uint64_t token, const v1::RankCallReply& reply) override;
  void Direct(const RankKey& key, const v1::ControlDirective& directive) override;
  void Forget(const RankKey& key) override;
  absl::Status CallSelf(absl::Duration limit) override;
  void SetContact(bool coordinator_away, absl::Time lease_until) override {
    std::lock_guard lock(mutex_);
    coordinator_away_ = coordinator_away;
    lease_until_ = lease_until;
  }
  void Close() override;

  grpc::ServerUnaryReactor* Call(grpc::CallbackServerContext* context, const v1::TrainerCall* request,
                                 v1::RankCallReply* response) override;
  grpc::ServerUnaryReactor* Report(grpc::CallbackServerContext* context, const v1::TrainerReport* request,
                                   v1::TrainerReportReply* response) override;
  grpc::ServerWriteReactor<v1::ControlDirective>* Control(grpc::CallbackServerContext* context,
                                                          const v1::ControlRequest* request) override;

 private:
  friend class ControlReactor;
  friend class CallReactor;
  const Handlers handlers_;
  std::string socket_path_, own_directory_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  bool coordinator_away_ = true;                     // guarded by mutex_
  absl::Time lease_until_ = absl::InfiniteFuture();  // guarded by mutex_
  uint64_t next_token_ = 1;
  std::unordered_map<uint64_t, class CallReactor*> waiting_;
  std::map<RankKey, ControlReactor*> controls_;
  std::map<RankKey, v1::ControlDirective> kept_;
};

// One held call. Finished by the loop's answer or when the rank goes away.
class CallReactor : public grpc::ServerUnaryReactor {
 public:
  CallReactor(RankServerImpl* server, uint64_t token, uint64_t own_number, v1::RankCallReply* response)
      : server_(server), token_(token), own_number_(own_number), response_(response) {}
  void Answer(const v1::RankCallReply& reply) {
    *response_ = reply;
    response_->set_call(own_number_);
    Finish(grpc::Status::OK);
  }
  void OnCancel() override {
    bool mine = false;
    {
      std::lock_guard lock(server_->mutex_);
      mine = server_->waiting_.erase(token_) > 0;
    }
    if (!mine) return;  // being answered
    server_->handlers_.on_call_gone(token_);
    Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

 private:
  RankServerImpl* const server_;
  const uint64_t token_, own_number_;
  v1::RankCallReply* const response_;
};

// One rank's Control stream. All members under the server's mutex.
class ControlReactor : public grpc::ServerWriteReactor<v1::ControlDirective> {
 public:
  ControlReactor(RankServerImpl* server, RankKey key) : server_(server), key_(std::move(key)) {}
  void WriteLocked(const v1::ControlDirective& directive) {
    if (finished_) return;
    next_ = directive;
    pending_ = true;
    if (!writing_) StartLocked();
  }
  void EndLocked() {
    if (finished_) return;
    finished_ = true;
    Finish(grpc::Status::OK);
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(server_->mutex_);
    writing_ = false;
    if (!ok) return EndLocked();
    if (pending_ && !finished_) StartLocked();
  }
  void OnCancel() override {
    std::lock_guard lock(server_->mutex_);
    EndLocked();
  }
  void OnDone() override {
    {
      std::lock_guard lock(server_->mutex_);
      auto it = server_->controls_.find(key_);
      if (it != server_->controls_.end() && it->second == this) server_->controls_.erase(it);
    }
    delete this;
  }

 private:
  void StartLocked() {
    current_ = next_;
    pending_ = false;
    writing_ = true;
    StartWrite(&current_);
  }
  RankServerImpl* const server_;
  const RankKey key_;
  v1::ControlDirective current_, next_;
  bool writing_ = false, pending_ = false, finished_ = false;
};

grpc::ServerUnaryReactor* RankServerImpl::Call(grpc::CallbackServerContext*, const v1::TrainerCall* request,
                                               v1::RankCallReply* response) {
  CallReactor* reactor = nullptr;
  uint64_t token = 0;
  {
    std::lock_guard lock(mutex_);
    token = next_token_++;
    reactor = new CallReactor(this, token, request->call().call(), response);
    waiting_[token] = reactor;
  }
  handlers_.on_call(token, request->call());
  return reactor;
}

grpc::ServerUnaryReactor* RankServerImpl::Report(grpc::CallbackServerContext* context, const v1::TrainerReport* request,
                                                 v1::TrainerReportReply* response) {
  handlers_.on_report(*request);
  {
    std::lock_guard lock(mutex_);
    response->set_coordinator_away(coordinator_away_);
    if (lease_until_ != absl::InfiniteFuture()) {
      absl::Duration left = std::max(lease_until_ - AgentClock(), absl::ZeroDuration());
      response->mutable_lease_left()->set_seconds(absl::IDivDuration(left, absl::Seconds(1), &left));
      response->mutable_lease_left()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(left)));
    }
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::ControlDirective>* RankServerImpl::Control(grpc::CallbackServerContext*,
                                                                        const v1::ControlRequest* request) {
  const RankKey key = KeyOf(request->id());
  auto* reactor = new ControlReactor(this, key);
  std::lock_guard lock(mutex_);
  if (auto older = controls_.find(key); older != controls_.end()) older->second->EndLocked();
  controls_[key] = reactor;
  if (auto kept = kept_.find(key); kept != kept_.end()) reactor->WriteLocked(kept->second);
  return reactor;
}

void RankServerImpl::Answer(uint64_t token, const v1::RankCallReply& reply) {
  CallReactor* reactor = nullptr;
  {
    std::lock_guard lock(mutex_);
    auto it = waiting_.find(token);
    if (it == waiting_.end()) return;
    reactor = it->second;
    waiting_.erase(it);
  }
  reactor->Answer(reply);
}

void RankServerImpl::Direct(const RankKey& key, const v1::ControlDirective& directive) {
  std::lock_guard lock(mutex_);
  kept_[key] = directive;
  if (auto it = controls_.find(key); it != controls_.end()) it->second->WriteLocked(directive);
}

void RankServerImpl::Forget(const RankKey& key) {
  std::lock_guard lock(mutex_);
  kept_.erase(key);
  if (auto it = controls_.find(key); it != controls_.end()) it->second->EndLocked();
}

absl::Status RankServerImpl::CallSelf(absl::Duration limit) {
  return listener_->CallSelf(limit, [](const std::shared_ptr<grpc::Channel>& channel, absl::Time deadline) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    v1::TrainerCall nobody;
    v1::RankCallReply reply;
    return FromGrpc(v1::TrainerService::NewStub(channel)->Call(&context, nobody, &reply));
  });
}

void RankServerImpl::Close() {
  if (server_ == nullptr) return;
  {
    std::lock_guard lock(mutex_);
    for (auto& [key, control] : controls_) control->EndLocked();
    for (auto& [token, call] : waiting_)
      call->Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the agent is stopping"));
    waiting_.clear();
  }
  listener_->Stop();
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  server_.reset();
  unlink(socket_path_.c_str());
  if (!own_directory_.empty()) rmdir(own_directory_.c_str());
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankServer>> RankServer::Open(const std::string& directory,
                                                             const ListenerOptions& options, Handlers handlers) {
  auto server = std::make_unique<RankServerImpl>(std::move(handlers));
  RETURN_IF_ERROR(server->Listen(directory, options));
  return server;
}

}  // namespace athanor::agent

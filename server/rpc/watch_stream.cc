#include "server/rpc/watch_stream.h"

#include <mutex>

#include "athanor/base/status_macros.h"
#include "server/rpc/job_reference.h"
#include "server/runtime/watch_hub.h"

namespace athanor {
namespace {

// The stream's half that the hub holds. It outlives the reactor, which detaches itself when gRPC is done with it.
class WatchReactor;

class HubSide : public Watcher {
 public:
  explicit HubSide(WatchReactor* reactor) : reactor_(reactor) {}
  void Send(v1::WatchJobResponse response) override;
  void Detach() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
  }
  template <typename Fn>
  void WithReactor(Fn fn) {
    std::lock_guard lock(mutex_);
    if (reactor_ != nullptr) fn(*reactor_);
  }

 private:
  std::mutex mutex_;
  WatchReactor* reactor_;
};

class WatchReactor : public grpc::ServerWriteReactor<v1::WatchJobResponse> {
 public:
  explicit WatchReactor(CoreLoop* loop) : loop_(loop), hub_side_(std::make_shared<HubSide>(this)) {}
  std::shared_ptr<HubSide> hub_side() { return hub_side_; }

  // Under the hub side's lock.
  void Write(v1::WatchJobResponse response) {
    if (finished_) return;
    response_ = std::move(response);
    StartWrite(&response_);
  }
  void End(const absl::Status& status) {
    if (finished_) return;
    finished_ = true;
    Finish(ToGrpc(status));
  }

  void OnWriteDone(bool ok) override {
    const bool final = response_.final();
    hub_side_->WithReactor([&](WatchReactor& self) {
      if (!ok || final) self.End(absl::OkStatus());
    });
    if (ok && !final) loop_->watches().Ready(hub_side_.get());
    // The loop sleeps until there is work; a reader that fell behind is served at its next turn.
  }
  void OnCancel() override {
    hub_side_->WithReactor([](WatchReactor& self) { self.End(absl::CancelledError("the client went away")); });
  }
  void OnDone() override {
    hub_side_->Detach();  // from here on nobody adds it to the hub
    loop_->watches().Remove(hub_side_.get());
    delete this;
  }

 private:
  CoreLoop* const loop_;
  const std::shared_ptr<HubSide> hub_side_;
  v1::WatchJobResponse response_;
  bool finished_ = false;
};

void HubSide::Send(v1::WatchJobResponse response) {
  WithReactor([&](WatchReactor& reactor) { reactor.Write(std::move(response)); });
}

}  // namespace

grpc::ServerWriteReactor<v1::WatchJobResponse>* StartWatch(const RpcContext& rpc, grpc::CallbackServerContext* context,
                                                           const v1::WatchJobRequest& request) {
  auto* reactor = new WatchReactor(rpc.loop);
  const std::shared_ptr<HubSide> side = reactor->hub_side();
  if (const absl::Status status = Authorize(rpc, *context); !status.ok()) {
    side->WithReactor([&](WatchReactor& self) { self.End(status); });
    return reactor;
  }
  CoreLoop* loop = rpc.loop;
  loop->PostRead([loop, side, context, job = request.job(), after = request.after_event()](
                     const core::CoordinatorCore& core, absl::Time now) {
    // The reactor keeps the context alive; a client that is gone has neither.
    side->WithReactor([&](WatchReactor& self) {
      const absl::StatusOr<core::JobId> id = ResolveWithNote(core, job, context);
      if (!id.ok()) return self.End(id.status());
      loop->watches().Add(side, *id, after, now);
    });
  });
  return reactor;
}

}  // namespace athanor

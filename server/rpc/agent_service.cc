#include "server/rpc/agent_service.h"

#include <atomic>
#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"
#include "common/service/logging_setup.h"
#include "common/service/protocol_version.h"
#include "common/service/unreadable_message.h"
#include "server/convert/proto_convert.h"
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
        TakeHeartbeat(incoming_.heartbeat());
        return absl::OkStatus();
      case v1::AgentMessage::kLaunched:
        loop_->Post(
            core::RankLaunched{session_, worker_, FromProto(incoming_.launched().id()), incoming_.launched().pid()},
            ack);
        return absl::OkStatus();
      case v1::AgentMessage::kExited: {
        const v1::RankExited& exited = incoming_.exited();
        core::RankExited event{session_,     worker_,           FromProto(exited.id()),
                               std::nullopt, exited.finished(), exited.newest_generation()};
        if (exited.has_cause()) event.cause = FromProto(exited.cause());
        loop_->Post(std::move(event), ack);
        return absl::OkStatus();
      }
      case v1::AgentMessage::kCall:
        return TakeCall(incoming_.call(), ack);
      case v1::AgentMessage::kLogData:
        loop_->sessions().OnLogData(incoming_.log_data());
        return absl::OkStatus();
      case v1::AgentMessage::kFilesDeleted: {
        const v1::FilesDeleted& deleted = incoming_.files_deleted();
        loop_->Post(
            core::FilesDeleted{worker_, core::JobId(deleted.job()), deleted.step(), CutUtf8(deleted.error(), 1024)},
            ack);
        return absl::OkStatus();
      }
      case v1::AgentMessage::kStacks: {
        const v1::StackDump& dump = incoming_.stacks();
        constexpr size_t kInEvent = 4096;
        loop_->Post(core::RankStacks{worker_, FromProto(dump.id()), CutUtf8(dump.text(), kInEvent)}, ack);
        return absl::OkStatus();
      }
      default:
        return absl::InvalidArgumentError("a message without a body");
    }
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
    core::WorkerRegistered event;
    event.session = session_;
    event.worker = worker_;
    event.incarnation = message.incarnation();
    event.instance = message.instance();
    event.home = message.home();
    event.host = message.host();
    event.device = message.device().empty() ? "cpu" : message.device();
    event.version = message.version();
    event.slots = message.slots();
    event.labels = {message.labels().begin(), message.labels().end()};
    for (const v1::RunningRank& rank : message.running()) {
      event.running.push_back(
          {FromProto(rank.id()), {rank.slots().begin(), rank.slots().end()}, FromProto(rank.progress())});
    }
    loop_->Post(std::move(event));
    return absl::OkStatus();
  }

  void TakeHeartbeat(const v1::Heartbeat& message) {
    core::WorkerHeartbeat event{session_, worker_, 0, {}, message.leaving()};
    for (const v1::RankReport& report : message.reports()) {
      event.reports.push_back({FromProto(report.id()), FromProto(report.progress()),
                               std::max(FromProto(report.age()), absl::ZeroDuration())});
    }
    const auto acknowledge = [handle = handle_, number = message.number()] {
      v1::CoordinatorMessage ack;
      ack.mutable_heartbeat_ack()->set_number(number);
      handle->Send(std::move(ack));
    };
    // While the store is full nothing is decided, and nobody's lease ends: training goes on. Heartbeats come again, so
    // that they need not pile up in the queue.
    if (!message.leaving() && !loop_->StoreStatus().ok()) return acknowledge();
    loop_->Post(std::move(event), acknowledge);
  }

  absl::Status TakeCall(const v1::RankCall& call, const std::function<void()>& ack) {
    const core::RankRef id = FromProto(call.id());
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
    switch (call.request_case()) {
      case v1::RankCall::kJoin:
        loop_->Post(core::RankJoined{held, worker_, id, call.join().endpoint()}, ack);
        return absl::OkStatus();
      case v1::RankCall::kCommitShard: {
        const v1::ShardInfo& shard = call.commit_shard().shard();
        loop_->Post(core::ShardCommitted{held,
                                         worker_,
                                         id,
                                         call.commit_shard().step(),
                                         {shard.rank(), shard.file(), shard.bytes(), shard.crc32c()}},
                    ack);
        return absl::OkStatus();
      }
      case v1::RankCall::kCommitManifest: {
        const v1::CommitManifest& manifest = call.commit_manifest();
        loop_->Post(
            core::ManifestCommitted{held, worker_, id, manifest.step(), manifest.bytes(),
                                    BoundedMetrics(manifest.metrics(), kMaxCheckpointMetrics), manifest.is_best(),
                                    manifest.save_seconds(), CutUtf8(manifest.storage(), 64)},
            ack);
        return absl::OkStatus();
      }
      case v1::RankCall::kFinish:
        loop_->Post(core::RankFinished{held, worker_, id, FromProto(call.finish().progress())}, ack);
        return absl::OkStatus();
      case v1::RankCall::kReportDamage:
        loop_->Post(core::CheckpointDamaged{held, worker_, id, call.report_damage().step(),
                                            CutUtf8(call.report_damage().reason(), 1024)},
                    ack);
        return absl::OkStatus();
      case v1::RankCall::kAbandonCheckpoint:
        loop_->Post(core::CheckpointAbandoned{held, worker_, id, call.abandon_checkpoint().step(),
                                              CutUtf8(call.abandon_checkpoint().reason(), 1024)},
                    ack);
        return absl::OkStatus();
      default:
        return absl::InvalidArgumentError("a rank's call without a request");
    }
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

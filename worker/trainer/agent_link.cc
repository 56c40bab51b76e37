#include "worker/trainer/agent_link.h"

#include <grpcpp/client_context.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "athanor/v1/trainer_service.grpc.pb.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"
#include "common/service/message_fields.h"
#include "common/service/message_text.h"

namespace athanor {
namespace {

constexpr absl::Duration kRetryFirst = absl::Milliseconds(20);
constexpr absl::Duration kRetryMax = absl::Milliseconds(500);
using Clock = std::chrono::steady_clock;
constexpr size_t kMaxSocketPath = 107;  // of sockaddr_un, without the final zero
constexpr size_t kMaxMetrics = 64;
constexpr size_t kMaxErrorBytes = 1024;

v1::RankProgress ToProto(const ProgressReport& report, const std::string& phase, int rank) {
  v1::RankProgress proto;
  CopyToMessage(report, &proto);
  if (report.metrics.size() > kMaxMetrics) {
    proto.clear_metrics();
    proto.mutable_metrics()->insert(report.metrics.begin(), std::next(report.metrics.begin(), kMaxMetrics));
  }
  proto.set_checkpoint_error(CutUtf8(report.checkpoint_error, kMaxErrorBytes));
  proto.set_rank(rank);
  proto.set_phase(phase);
  proto.set_phase_progress(report.phase_progress.done);
  proto.set_exchanges(report.phase_progress.exchanges);
  for (const std::string& event : report.events) proto.add_events(CutUtf8(event, kMaxErrorBytes));
  const int64_t now = absl::ToUnixNanos(absl::Now());
  proto.mutable_updated_at()->set_seconds(now / 1000000000);
  proto.mutable_updated_at()->set_nanos(static_cast<int32_t>(now % 1000000000));
  return proto;
}

v1::ShardInfo ToProto(const ShardInfo& shard) {
  v1::ShardInfo proto;
  proto.set_rank(shard.rank);
  proto.set_file(shard.file);
  proto.set_bytes(shard.bytes);
  proto.set_crc32c(shard.crc32c);
  return proto;
}

}  // namespace

class AgentLink::Impl {
 public:
  Impl(std::shared_ptr<grpc::Channel> channel, RankIdentity identity)
      : identity_(std::move(identity)), stub_(v1::TrainerService::NewStub(channel)) {}

  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
      if (stream_ != nullptr) stream_->TryCancel();
    }
    wake_.notify_all();
    if (listener_.joinable()) listener_.join();
  }

  // `patient`: a coordinator that is away is waited for.
  absl::StatusOr<v1::RankCallReply> Call(v1::RankCall request, const char* what, absl::Time deadline, bool patient) {
    const absl::Time began = absl::Now();
    const absl::Duration limit = deadline - began;
    v1::TrainerCall call;
    request.set_call(next_call_.fetch_add(1));
    FillId(request.mutable_id());
    *call.mutable_call() = std::move(request);
    MakeTextValid(&call);
    absl::Duration pause = kRetryFirst;
    while (true) {
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(deadline));
      context.set_wait_for_ready(true);
      v1::RankCallReply reply;
      const absl::Status status = Annotate(FromGrpc(stub_->Call(&context, call, &reply)), what);
      if (status.ok() && reply.code() == 0) return reply;
      if (status.ok())
        return absl::Status(static_cast<absl::StatusCode>(reply.code()), absl::StrCat(what, ": ", reply.message()));
      if (absl::IsDeadlineExceeded(status) && patient && coordinator_away_ &&
          absl::Now() - began < AgentLink::kAwayLimit) {
        deadline = absl::Now() + limit;
        continue;
      }
      if (!absl::IsUnavailable(status) || absl::Now() + pause >= deadline || !Pause(pause)) return status;
      pause = std::min(pause * 2, kRetryMax);
    }
  }

  absl::Status Report(const ProgressReport& progress, const std::string& phase, absl::Time deadline) {
    v1::TrainerReport report;
    FillId(report.mutable_id());
    *report.mutable_progress() = ToProto(progress, phase, identity_.rank);
    MakeTextValid(&report);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    v1::TrainerReportReply reply;
    const Clock::time_point asked = Clock::now();
    const absl::Status status = Annotate(FromGrpc(stub_->Report(&context, report, &reply)), "report");
    if (!status.ok()) return status;
    coordinator_away_ = reply.coordinator_away();
    const google::protobuf::Duration& left = reply.lease_left();
    lease_until_ = reply.has_lease_left()
                       ? asked + std::chrono::seconds(left.seconds()) + std::chrono::nanoseconds(left.nanos())
                       : Clock::time_point::max();
    return status;
  }

  void Listen(std::function<void(const StopRequest&)> on_stop) {
    listener_ = std::thread([this, on_stop = std::move(on_stop)] {
      pthread_setname_np(pthread_self(), "athanor-listen");
      do {
        ListenOnce(on_stop);
      } while (Pause(kRetryMax));
    });
  }

  int rank() const { return identity_.rank; }
  bool away() const { return coordinator_away_; }
  absl::Duration LeaseLeft() const {
    const Clock::time_point until = lease_until_;
    return until == Clock::time_point::max() ? absl::InfiniteDuration() : absl::FromChrono(until - Clock::now());
  }

 private:
  void FillId(v1::RankId* id) const {
    id->set_job(identity_.job);
    id->set_generation(identity_.generation);
    id->set_rank(identity_.rank);
  }

  // False when the link is closing.
  bool Pause(absl::Duration duration) {
    std::unique_lock lock(mutex_);
    return !wake_.wait_for(lock, absl::ToChronoNanoseconds(duration), [this] { return closing_; });
  }

  void ListenOnce(const std::function<void(const StopRequest&)>& on_stop) {
    v1::ControlRequest request;
    FillId(request.mutable_id());
    grpc::ClientContext context;
    {
      std::lock_guard lock(mutex_);
      if (closing_) return;
      stream_ = &context;
    }
    auto reader = stub_->Control(&context, request);
    v1::ControlDirective directive;
    while (reader->Read(&directive)) {
      if (directive.stop() == v1::STOP_MODE_UNSPECIFIED) continue;
      on_stop({.save = directive.stop() == v1::SAVE_AND_LEAVE, .reason = directive.reason()});
    }
    (void)reader->Finish();  // whatever ended the stream, it is opened again
    std::lock_guard lock(mutex_);
    stream_ = nullptr;
  }

  const RankIdentity identity_;
  const std::unique_ptr<v1::TrainerService::Stub> stub_;
  std::atomic<uint64_t> next_call_{1};
  std::atomic<bool> coordinator_away_{false};  // as the agent said last
  std::atomic<Clock::time_point> lease_until_{Clock::time_point::max()};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool closing_ = false;                   // guarded by mutex_
  grpc::ClientContext* stream_ = nullptr;  // guarded by mutex_
  std::thread listener_;
};

absl::StatusOr<std::unique_ptr<AgentLink>> AgentLink::Open(const std::string& socket, RankIdentity identity) {
  if (socket.empty() || socket.size() > kMaxSocketPath) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket path '", socket, "' has ", socket.size(), " bytes; allowed: 1 to ", kMaxSocketPath));
  }
  ASSIGN_OR_RETURN(auto channel, MakeChannel(absl::StrCat("unix:", socket), {}));
  return std::unique_ptr<AgentLink>(new AgentLink(std::make_unique<Impl>(std::move(channel), std::move(identity))));
}

AgentLink::AgentLink(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AgentLink::~AgentLink() = default;

absl::StatusOr<RendezvousPlan> AgentLink::Join(const std::string& endpoint, absl::Time deadline) {
  v1::RankCall call;
  call.mutable_join()->set_endpoint(endpoint);
  ASSIGN_OR_RETURN(v1::RankCallReply reply, impl_->Call(std::move(call), "join", deadline, true));
  RendezvousPlan plan{.world_size = reply.plan().world_size(),
                      .store_endpoint = reply.plan().store_endpoint(),
                      .restarts = reply.plan().restarts()};
  for (const v1::ResumePoint& point : reply.plan().resume()) {
    plan.resume.push_back(
        {.step = point.step(), .path = point.path(), .weights_only = point.weights_only(), .storage = point.storage()});
  }
  return plan;
}

absl::StatusOr<std::vector<ShardInfo>> AgentLink::CommitShard(int64_t step, const ShardInfo& shard,
                                                              absl::Time deadline) {
  v1::RankCall call;
  call.mutable_commit_shard()->set_step(step);
  *call.mutable_commit_shard()->mutable_shard() = ToProto(shard);
  ASSIGN_OR_RETURN(v1::RankCallReply reply, impl_->Call(std::move(call), "commit of a shard", deadline, true));
  std::vector<ShardInfo> shards;
  for (const v1::ShardInfo& proto : reply.shards()) {
    shards.push_back({.rank = proto.rank(), .file = proto.file(), .bytes = proto.bytes(), .crc32c = proto.crc32c()});
  }
  std::sort(shards.begin(), shards.end(), [](const ShardInfo& a, const ShardInfo& b) { return a.rank < b.rank; });
  return shards;
}

absl::Status AgentLink::CommitManifest(const ManifestSummary& summary, const std::string& storage,
                                       absl::Time deadline) {
  v1::RankCall call;
  v1::CommitManifest& manifest = *call.mutable_commit_manifest();
  manifest.set_step(summary.step);
  manifest.set_bytes(summary.bytes);
  manifest.mutable_metrics()->insert(summary.metrics.begin(), summary.metrics.end());
  manifest.set_is_best(summary.is_best);
  manifest.set_save_seconds(summary.save_seconds);
  manifest.set_storage(storage);
  return impl_->Call(std::move(call), "commit of a checkpoint", deadline, true).status();
}

absl::Status AgentLink::ReportEvaluation(const EvaluationSummary& summary, absl::Time deadline) {
  v1::RankCall call;
  v1::ReportEvaluation& evaluation = *call.mutable_report_evaluation();
  evaluation.set_step(summary.step);
  evaluation.mutable_metrics()->insert(summary.metrics.begin(), summary.metrics.end());
  evaluation.set_is_best(summary.is_best);
  return impl_->Call(std::move(call), "report of an evaluation", deadline, true).status();
}

absl::Status AgentLink::AbandonCheckpoint(int64_t step, const std::string& reason, absl::Time deadline) {
  v1::RankCall call;
  call.mutable_abandon_checkpoint()->set_step(step);
  call.mutable_abandon_checkpoint()->set_reason(CutUtf8(reason, kMaxErrorBytes));
  return impl_->Call(std::move(call), "giving a checkpoint up", deadline, false).status();
}

absl::Status AgentLink::ReportDamage(int64_t step, const std::string& reason, absl::Time deadline) {
  v1::RankCall call;
  call.mutable_report_damage()->set_step(step);
  call.mutable_report_damage()->set_reason(CutUtf8(reason, kMaxErrorBytes));
  return impl_->Call(std::move(call), "report of a damaged checkpoint", deadline, false).status();
}

absl::Status AgentLink::Finish(const ProgressReport& progress, const std::string& phase, absl::Time deadline) {
  v1::RankCall call;
  *call.mutable_finish()->mutable_progress() = ToProto(progress, phase, impl_->rank());
  return impl_->Call(std::move(call), "finish", deadline, true).status();
}

absl::Status AgentLink::Report(const ProgressReport& progress, const std::string& phase, absl::Time deadline) {
  return impl_->Report(progress, phase, deadline);
}

absl::Duration AgentLink::LeaseLeft() const {
  return impl_->LeaseLeft();
}

bool AgentLink::CoordinatorIsAway() const {
  return impl_->away();
}

void AgentLink::Listen(std::function<void(const StopRequest&)> on_stop) {
  impl_->Listen(std::move(on_stop));
}

}  // namespace athanor

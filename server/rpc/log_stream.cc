#include "server/rpc/log_stream.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "server/rpc/request_validation.h"
#include "server/storage/proto_convert.h"

namespace athanor {
namespace {

constexpr int kMaxStreams = 128;
constexpr auto kAnswerWithin =
    std::chrono::seconds(15);  // an agent answers a read that follows within 10 s, be it with nothing
std::atomic<int> open_streams{0};

// Blocking writes over the callback API: the stream's own thread waits for each.
class LogReactor : public grpc::ServerWriteReactor<v1::LogChunk> {
 public:
  bool Write(const v1::LogChunk& chunk) {
    std::unique_lock lock(mutex_);
    if (gone_) return false;
    chunk_ = chunk;
    writing_ = true;
    StartWrite(&chunk_);
    changed_.wait(lock, [this] { return !writing_ || gone_; });
    return !gone_;
  }
  void End(const absl::Status& status) {
    Finish(ToGrpc(status));
    std::unique_lock lock(mutex_);
    ended_ = true;
    if (done_) Destroy(lock);
  }
  bool gone() {
    std::lock_guard lock(mutex_);
    return gone_;
  }
  // Waits for `span`, or until the client went away.
  bool WaitGone(std::chrono::milliseconds span) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, span, [this] { return gone_; });
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    gone_ = gone_ || !ok;
    changed_.notify_all();
  }
  void OnCancel() override {
    std::lock_guard lock(mutex_);
    gone_ = true;
    changed_.notify_all();
  }
  void OnDone() override {
    std::unique_lock lock(mutex_);
    done_ = true;
    if (ended_) Destroy(lock);
  }

 private:
  void Destroy(std::unique_lock<std::mutex>& lock) {
    lock.unlock();
    delete this;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  v1::LogChunk chunk_;
  bool writing_ = false, gone_ = false, done_ = false, ended_ = false;
};

struct RankLog {
  core::RankRef id;
  core::WorkerId worker;
  int64_t offset = 0;
  bool ended = false;
};

struct JobView {
  absl::Status status;
  bool final = false;
  std::vector<RankLog> logs;  // of all stored generations, in order
};

class LogStream {
 public:
  LogStream(CoreLoop* loop, LogReactor* reactor, v1::ReadLogsRequest request)
      : loop_(loop), reactor_(reactor), request_(std::move(request)) {}

  absl::Status Run() {
    core::Generation after = 0;
    while (true) {
      JobView view = Look(after);
      RETURN_IF_ERROR(view.status);
      for (size_t begin = 0; begin < view.logs.size();) {
        const core::Generation generation = view.logs[begin].id.generation;
        size_t end = begin;
        while (end < view.logs.size() && view.logs[end].id.generation == generation) ++end;
        RETURN_IF_ERROR(ReadGeneration(
            {view.logs.begin() + static_cast<ptrdiff_t>(begin), view.logs.begin() + static_cast<ptrdiff_t>(end)}));
        after = generation;
        begin = end;
      }
      if (!request_.follow() || (view.final && view.logs.empty()) || (request_.generation() > 0 && !view.logs.empty()))
        return absl::OkStatus();
      // The job waits or starts again: its next generation is picked up when it is there.
      if (view.logs.empty() && reactor_->WaitGone(std::chrono::milliseconds(100))) return absl::CancelledError();
      if (reactor_->gone()) return absl::CancelledError();
    }
  }

 private:
  JobView Look(core::Generation after) {
    auto promise = std::make_shared<std::promise<JobView>>();
    std::future<JobView> future = promise->get_future();
    loop_->PostRead([promise, request = request_, after](const core::CoordinatorCore& core, absl::Time) {
      JobView view;
      const absl::StatusOr<core::JobId> id = core::ResolveJob(core.state(), request.job());
      view.status = id.status();
      if (id.ok()) {
        view.final = core::IsFinal(core.state().jobs.at(*id).state);
        auto generations = core.state().generations.find(*id);
        if (generations != core.state().generations.end()) {
          for (const auto& [number, generation] : generations->second) {
            if (number <= after || (request.generation() > 0 && number != request.generation())) continue;
            for (const core::RankEntry& rank : generation.ranks) {
              if (request.rank() >= 0 && rank.placement.rank != request.rank()) continue;
              view.logs.push_back({{*id, number, rank.placement.rank}, rank.placement.worker, 0, false});
            }
          }
        }
      }
      promise->set_value(std::move(view));
    });
    if (future.wait_for(kAnswerWithin) != std::future_status::ready)
      return {absl::UnavailableError("the coordinator is busy"), false, {}};
    return future.get();
  }

  // Without follow: rank after rank, each to its end. With it: in turns, as lines come.
  absl::Status ReadGeneration(std::vector<RankLog> logs) {
    for (RankLog& log : logs) log.offset = request_.tail_bytes() > 0 ? -request_.tail_bytes() : 0;
    bool open = true;
    while (open) {
      open = false;
      for (RankLog& log : logs) {
        bool more = !log.ended;
        while (more) RETURN_IF_ERROR(ReadOnce(log, /*wait=*/request_.follow() && logs.size() == 1, more));
        open = open || !log.ended;
      }
      if (open && logs.size() > 1 && reactor_->WaitGone(std::chrono::milliseconds(100))) return absl::CancelledError();
      if (reactor_->gone()) return absl::CancelledError();
    }
    return absl::OkStatus();
  }

  // One chunk; `more` when it pays to ask again at once.
  absl::Status ReadOnce(RankLog& log, bool wait, bool& more) {
    v1::ReadLog ask;
    *ask.mutable_id() = ToProto(log.id);
    ask.set_offset(log.offset);
    ask.set_follow(wait);
    auto promise = std::make_shared<std::promise<v1::LogData>>();
    std::future<v1::LogData> future = promise->get_future();
    v1::LogData data;
    if (!loop_->sessions().ReadLog(log.worker, ask,
                                   [promise](const v1::LogData& answer) { promise->set_value(answer); })) {
      data.set_error(absl::StrCat("its agent ", log.worker.str(), " is not connected"));
    } else if (future.wait_for(kAnswerWithin) != std::future_status::ready) {
      data.set_error(absl::StrCat("its agent ", log.worker.str(), " does not answer"));
    } else {
      data = future.get();
    }
    v1::LogChunk chunk;
    chunk.set_generation(log.id.generation);
    chunk.set_rank(log.id.rank);
    more = false;
    if (!data.error().empty()) {
      log.ended = true;
      chunk.set_notice(absl::StrCat("log of rank ", log.id.rank, ", generation ", log.id.generation,
                                    " cannot be read: ", data.error()));
      return reactor_->Write(chunk) ? absl::OkStatus() : absl::CancelledError();
    }
    log.offset = data.next_offset();
    log.ended = data.end() || (!request_.follow() && data.data().empty());
    more = !data.data().empty() && !log.ended;
    if (data.data().empty()) return absl::OkStatus();
    chunk.set_data(data.data());
    return reactor_->Write(chunk) ? absl::OkStatus() : absl::CancelledError();
  }

  CoreLoop* const loop_;
  LogReactor* const reactor_;
  const v1::ReadLogsRequest request_;
};

absl::Status CheckLogRequest(const v1::ReadLogsRequest& request) {
  RETURN_IF_ERROR(CheckReference("job", request.job()));
  if (request.rank() < -1 || request.rank() >= kMaxRanks)
    return absl::InvalidArgumentError(absl::StrCat("rank: ", request.rank(), "; allowed: -1 (all) or a rank"));
  if (request.generation() < 0)
    return absl::InvalidArgumentError("generation: negative; allowed: 0 (all) or a generation");
  if (request.tail_bytes() < 0) return absl::InvalidArgumentError("tail_bytes: negative");
  if (open_streams.load() >= kMaxStreams)
    return absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxStreams, " log streams are open"));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::LogChunk>* StartLogStream(const RpcContext& rpc, const absl::Status& authorized,
                                                       const v1::ReadLogsRequest& request) {
  auto* reactor = new LogReactor;
  absl::Status status = authorized;
  if (status.ok()) status = CheckLogRequest(request);
  if (!status.ok()) {
    reactor->End(status);
    return reactor;  // NOLINT(clang-analyzer-cplusplus.NewDelete): gRPC calls OnDone only after it has the reactor
  }
  ++open_streams;
  std::thread([loop = rpc.loop, reactor, request] {
    pthread_setname_np(pthread_self(), "athanor-logs");
    const absl::Status result = LogStream(loop, reactor, request).Run();
    reactor->End(result);
    --open_streams;
  }).detach();
  return reactor;
}

}  // namespace athanor

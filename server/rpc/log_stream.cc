#include "server/rpc/log_stream.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "server/convert/proto_convert.h"
#include "server/rpc/job_reference.h"
#include "server/rpc/request_validation.h"

namespace athanor {
namespace {

// Followers cannot lock out who only reads.
constexpr int kMaxReaders = 256, kMaxFollowers = 2048;
// Ranks whose reads an agent may hold until there is output; with more, all are asked in turns.
constexpr size_t kHeldRanks = 16;
constexpr size_t kChunksReady = 2;                           // of one rank that is read to its end
constexpr absl::Duration kAnswerWithin = absl::Seconds(15);  // an agent answers a read that follows within 10 s
constexpr absl::Duration kFirstPause = absl::Milliseconds(100), kLongestPause = absl::Seconds(1);
std::atomic<int> open_readers{0}, open_followers{0};

struct RankLog {
  core::RankRef id;
  core::WorkerId worker;
  int64_t offset = 0;
  bool ended = false;
  bool reading = false;  // asked, not answered
  bool queued = false;   // its last chunk was not written yet
  uint64_t read = 0;     // number of the question: a late answer to an earlier one is dropped
  absl::Time answer_by;
};

struct JobView {
  absl::Status status;
  core::JobId job;
  bool final = false;
  std::vector<RankLog> logs;  // of generations after the last one that was read, in order
};

// Keeps itself alive from Start() until gRPC is done with it. Every entry takes the lock and ends in Pump().
class LogStream : public grpc::ServerWriteReactor<v1::LogChunk>, public std::enable_shared_from_this<LogStream> {
 public:
  LogStream(CoreLoop* loop, grpc::CallbackServerContext* context, v1::ReadLogsRequest request)
      : loop_(loop), context_(context), request_(std::move(request)) {}

  void Start(const absl::Status& refused) {
    std::lock_guard lock(mutex_);
    self_ = shared_from_this();
    if (refused.ok()) {
      ++count();
      counted_ = true;
      Look();
    } else {
      result_ = refused;
      Pump();
    }
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) Give(absl::CancelledError());
    Pump();
  }
  void OnCancel() override {
    std::lock_guard lock(mutex_);
    Give(absl::CancelledError());
    Pump();
  }
  void OnDone() override {
    std::shared_ptr<LogStream> self;  // outlives the lock
    std::lock_guard lock(mutex_);
    if (counted_) --count();
    self.swap(self_);
  }

 private:
  std::atomic<int>& count() { return request_.follow() ? open_followers : open_readers; }

  // What is ready is not wanted any more.
  void Give(const absl::Status& status) {
    ready_.clear();
    if (!result_.has_value() || result_->ok()) result_ = status;
  }

  void Pump() {
    if (finished_) return;
    if (!writing_ && !ready_.empty()) Write();
    if (result_.has_value()) {
      if (writing_ || !ready_.empty()) return;
      finished_ = true;
      Finish(ToGrpc(*result_));
      return;
    }
    if (looking_) return;
    if (std::all_of(logs_.begin(), logs_.end(), [](const RankLog& log) { return log.ended; })) return NextGeneration();
    if (!request_.follow()) return ReadInOrder();
    if (logs_.size() <= kHeldRanks) return ReadHeld();
    ReadInTurns();
  }

  void Write() {
    auto [log, chunk] = std::move(ready_.front());
    ready_.pop_front();
    if (log < logs_.size()) logs_[log].queued = false;
    chunk_ = std::move(chunk);
    writing_ = true;
    StartWrite(&chunk_);
  }

  // ---- which logs ----

  void NextGeneration() {
    if (!ready_.empty() || writing_) return;  // `logs_` is still spoken of
    logs_.clear();
    if (!waiting_.empty()) {
      after_ = waiting_.front().id.generation;
      while (!waiting_.empty() && waiting_.front().id.generation == after_) {
        logs_.push_back(std::move(waiting_.front()));
        waiting_.pop_front();
      }
      pause_length_ = kFirstPause;
      return Pump();
    }
    const bool only_one = request_.generation() > 0 && after_ > 0;
    if (!request_.follow() || only_one || (final_ && nothing_new_)) {
      result_ = absl::OkStatus();
      return Pump();
    }
    if (!nothing_new_) return Look();
    // The job waits or starts again: its next generation is picked up when it is there.
    looking_ = look_after_pause_ = true;
    Pause();
  }

  void Look() {
    looking_ = true;
    loop_->PostRead([self = shared_from_this(), request = request_, job = job_, after = after_](
                        const core::CoordinatorCore& core, absl::Time) { self->OnView(core, request, job, after); });
  }

  void OnView(const core::CoordinatorCore& core, const v1::ReadLogsRequest& request, const core::JobId& job,
              core::Generation after) {
    std::lock_guard lock(mutex_);
    looking_ = false;
    if (finished_ || result_.has_value()) return Pump();
    JobView view;
    view.job = job;
    if (job.str().empty()) {
      absl::StatusOr<core::JobId> id = ResolveWithNote(core, request.job(), context_);
      view.status = id.status();
      if (id.ok()) view.job = *id;
    }
    if (view.status.ok()) Fill(core, request, after, view);
    if (!view.status.ok()) {
      result_ = view.status;
      return Pump();
    }
    job_ = view.job;
    final_ = view.final;
    nothing_new_ = view.logs.empty();
    waiting_.assign(std::make_move_iterator(view.logs.begin()), std::make_move_iterator(view.logs.end()));
    Pump();
  }

  static void Fill(const core::CoordinatorCore& core, const v1::ReadLogsRequest& request, core::Generation after,
                   JobView& view) {
    const auto job = core.state().jobs.find(view.job);
    if (job == core.state().jobs.end()) {
      view.status = absl::NotFoundError(absl::StrCat("no job '", view.job.str(), "'"));
      return;
    }
    view.final = core::IsFinal(job->second.state);
    if (request.rank() >= job->second.spec.ranks) {
      view.status = absl::NotFoundError(absl::StrCat(view.job.str(), " has no rank ", request.rank(),
                                                     "; allowed: 0 to ", job->second.spec.ranks - 1));
      return;
    }
    const auto generations = core.state().generations.find(view.job);
    const bool none = generations == core.state().generations.end() || generations->second.empty();
    // A follower may wait for a generation that is yet to come.
    const int32_t wanted = request.generation();
    if (wanted > 0 && (none || !generations->second.contains(wanted)) && (!request.follow() || view.final)) {
      const std::string allowed =
          none ? "none yet"
               : absl::StrCat(generations->second.begin()->first, " to ", generations->second.rbegin()->first);
      view.status =
          absl::NotFoundError(absl::StrCat(view.job.str(), " has no generation ", wanted, "; allowed: ", allowed));
      return;
    }
    if (none) return;
    for (const auto& [number, generation] : generations->second) {
      if (number <= after || (request.generation() > 0 && number != request.generation())) continue;
      for (const core::RankEntry& rank : generation.ranks) {
        if (request.rank() >= 0 && rank.placement.rank != request.rank()) continue;
        RankLog log;
        log.id = {view.job, number, rank.placement.rank};
        log.worker = rank.placement.worker;
        log.offset = request.tail_bytes() > 0 ? -request.tail_bytes() : 0;
        view.logs.push_back(std::move(log));
      }
    }
  }

  // ---- reading ----

  // Rank after rank, each to its end; the next chunk is asked for while the last one is written.
  void ReadInOrder() {
    for (size_t i = 0; i < logs_.size(); ++i) {
      if (logs_[i].ended) continue;
      if (!logs_[i].reading && ready_.size() < kChunksReady) Ask(i, /*hold=*/false);
      return;
    }
  }

  void ReadHeld() {
    for (size_t i = 0; i < logs_.size(); ++i) {
      if (!logs_[i].ended && !logs_[i].reading && !logs_[i].queued) Ask(i, /*hold=*/true);
    }
  }

  void ReadInTurns() {
    if (paused_) return;
    size_t asked = static_cast<size_t>(
        std::count_if(logs_.begin(), logs_.end(), [](const RankLog& log) { return log.reading || log.queued; }));
    for (; turn_ < logs_.size() && asked < kHeldRanks; ++turn_) {
      if (logs_[turn_].ended || logs_[turn_].reading || logs_[turn_].queued) continue;
      Ask(turn_, /*hold=*/false);
      ++asked;
    }
    if (turn_ < logs_.size() || asked > 0) return;
    turn_ = 0;
    Pause();
  }

  void Ask(size_t index, bool hold) {
    RankLog& log = logs_[index];
    v1::ReadLog ask;
    *ask.mutable_id() = ToProto(log.id);
    ask.set_offset(log.offset);
    ask.set_follow(hold);
    log.reading = true;
    log.read = ++last_read_;
    log.answer_by = absl::Now() + kAnswerWithin;
    const auto sent = loop_->sessions().ReadLog(
        log.worker, ask, [stream = weak_from_this(), index, read = log.read](const v1::LogData& data) {
          if (const std::shared_ptr<LogStream> self = stream.lock()) self->OnData(index, read, data);
        });
    if (sent == AgentSessions::ReadSent::kYes) return WatchOverdue();
    log.reading = false;
    if (sent == AgentSessions::ReadSent::kBusy) return Pause();  // asked again then
    End(index, absl::StrCat("its agent ", log.worker.str(), " is not connected"));
  }

  void OnData(size_t index, uint64_t read, const v1::LogData& data) {
    std::lock_guard lock(mutex_);
    if (finished_ || index >= logs_.size() || logs_[index].read != read || !logs_[index].reading) return;
    RankLog& log = logs_[index];
    log.reading = false;
    if (!data.error().empty()) {
      End(index, data.error());
    } else {
      log.offset = data.next_offset();
      log.ended = data.end() || (!request_.follow() && data.data().empty());
      if (!data.data().empty()) {
        v1::LogChunk chunk;
        chunk.set_data(data.data());
        Queue(index, std::move(chunk));
        pause_length_ = kFirstPause;
      }
    }
    Pump();
  }

  void End(size_t index, const std::string& why) {
    const RankLog& log = logs_[index];
    v1::LogChunk chunk;
    chunk.set_notice(
        absl::StrCat("log of rank ", log.id.rank, ", generation ", log.id.generation, " cannot be read: ", why));
    logs_[index].ended = true;
    Queue(index, std::move(chunk));
  }

  void Queue(size_t index, v1::LogChunk chunk) {
    if (result_.has_value()) return;
    chunk.set_generation(logs_[index].id.generation);
    chunk.set_rank(logs_[index].id.rank);
    logs_[index].queued = true;
    ready_.emplace_back(index, std::move(chunk));
    if (!writing_) Write();
  }

  // ---- time ----

  // Pumps again a little later; longer each time while nothing comes.
  void Pause() {
    if (paused_) return;
    paused_ = true;
    const absl::Duration length = pause_length_;
    pause_length_ = std::min(pause_length_ * 2, kLongestPause);
    pause_ = std::make_unique<grpc::Alarm>();
    pause_->Set(absl::ToChronoTime(absl::Now() + length), [stream = weak_from_this()](bool) {
      const std::shared_ptr<LogStream> self = stream.lock();
      if (self == nullptr) return;
      std::lock_guard lock(self->mutex_);
      self->paused_ = false;
      if (self->finished_) return;
      if (std::exchange(self->look_after_pause_, false) && !self->result_.has_value()) return self->Look();
      self->Pump();
    });
  }

  // An agent that does not answer at all must not hold the stream for ever.
  void WatchOverdue() {
    if (watching_overdue_) return;
    watching_overdue_ = true;
    overdue_ = std::make_unique<grpc::Alarm>();
    overdue_->Set(absl::ToChronoTime(absl::Now() + kAnswerWithin), [stream = weak_from_this()](bool) {
      const std::shared_ptr<LogStream> self = stream.lock();
      if (self == nullptr) return;
      std::lock_guard lock(self->mutex_);
      self->watching_overdue_ = false;
      if (!self->finished_) self->EndOverdue();
    });
  }

  void EndOverdue() {
    bool waiting = false;
    for (size_t i = 0; i < logs_.size(); ++i) {
      if (!logs_[i].reading) continue;
      waiting = true;
      if (absl::Now() < logs_[i].answer_by) continue;
      logs_[i].reading = false;
      End(i, absl::StrCat("its agent ", logs_[i].worker.str(), " does not answer"));
    }
    if (waiting) WatchOverdue();
    Pump();
  }

  CoreLoop* const loop_;
  grpc::CallbackServerContext* const context_;
  const v1::ReadLogsRequest request_;
  std::mutex mutex_;
  std::shared_ptr<LogStream> self_;
  core::JobId job_;                                    // once it is resolved
  core::Generation after_ = 0;                         // the last one that was begun
  std::vector<RankLog> logs_;                          // of that generation
  std::deque<RankLog> waiting_;                        // of later ones
  std::deque<std::pair<size_t, v1::LogChunk>> ready_;  // by index of its log
  v1::LogChunk chunk_;                                 // in gRPC's hands while writing_
  std::optional<absl::Status> result_;
  std::unique_ptr<grpc::Alarm> pause_, overdue_;  // a new one each time: an alarm cannot be set in its own callback
  absl::Duration pause_length_ = kFirstPause;
  size_t turn_ = 0;
  uint64_t last_read_ = 0;
  bool counted_ = false, looking_ = false, look_after_pause_ = false, paused_ = false, watching_overdue_ = false;
  bool final_ = false, nothing_new_ = false;
  bool writing_ = false, finished_ = false;
};

absl::Status CheckLogRequest(const v1::ReadLogsRequest& request) {
  RETURN_IF_ERROR(CheckReference("job", request.job()));
  if (request.rank() < -1 || request.rank() >= kMaxRanks)
    return absl::InvalidArgumentError(absl::StrCat("rank: ", request.rank(), "; allowed: -1 (all) or a rank"));
  if (request.generation() < 0)
    return absl::InvalidArgumentError("generation: negative; allowed: 0 (all) or a generation");
  if (request.tail_bytes() < 0) return absl::InvalidArgumentError("tail_bytes: negative");
  if (request.follow() && open_followers.load() >= kMaxFollowers)
    return absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxFollowers, " followers of logs"));
  if (!request.follow() && open_readers.load() >= kMaxReaders)
    return absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxReaders, " logs are read at once"));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::LogChunk>* StartLogStream(const RpcContext& rpc, grpc::CallbackServerContext* context,
                                                       const v1::ReadLogsRequest& request) {
  absl::Status status = Authorize(rpc, *context);
  if (status.ok()) status = CheckLogRequest(request);
  const auto stream = std::make_shared<LogStream>(rpc.loop, context, request);
  stream->Start(status);
  return stream.get();  // NOLINT(clang-analyzer-cplusplus.NewDelete): it holds itself until gRPC's OnDone
}

}  // namespace athanor

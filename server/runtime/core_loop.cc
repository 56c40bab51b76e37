#include "server/runtime/core_loop.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/service/logging_setup.h"
#include "server/observability/event_log.h"
#include "server/runtime/effect_runner.h"
#include "server/storage/record_codec.h"

namespace athanor {
namespace {

constexpr int kExitStoreBroken = 75;
constexpr size_t kBatch = 2048;
constexpr absl::Duration kRetryStore = absl::Milliseconds(200);
constexpr absl::Duration kSampleEvery = absl::Seconds(1);

core::JobId JobOf(const core::PutRecord& put) {
  return std::visit(
      [](const auto& entry) {
        using Entry = std::decay_t<decltype(entry)>;
        if constexpr (std::is_same_v<Entry, core::JobEntry>)
          return entry.id;
        else if constexpr (std::is_same_v<Entry, core::WorkerEntry>)
          return core::JobId();
        else
          return entry.job;
      },
      put.record);
}

absl::Status CannotStore(const absl::Status& why) {
  return absl::ResourceExhaustedError(absl::StrCat("nothing can be stored now: ", std::string(why.message())));
}

// Nobody is told that something was done which is not in the store.
void Refuse(std::vector<core::Effect>& effects, const absl::Status& why) {
  for (core::Effect& effect : effects) {
    if (auto* reply = std::get_if<core::Reply>(&effect); reply != nullptr && reply->status.ok()) reply->status = why;
    if (auto* reply = std::get_if<core::RankReply>(&effect); reply != nullptr && reply->status.ok())
      reply->status = why;
  }
}

}  // namespace

CoreLoop::CoreLoop(CoreLoopOptions options, std::unique_ptr<MetadataStore> store, core::ClusterState recovered,
                   CoordinatorMetrics* metrics)
    : options_(std::move(options)),
      store_(std::move(store)),
      metrics_(metrics),
      core_(options_.core, std::move(recovered), clock_.Now()) {}

CoreLoop::~CoreLoop() {
  Stop();
}

void CoreLoop::Start() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "athanor-core");
    Run();
  });
}

void CoreLoop::Drain() {
  draining_ = true;
  if (const absl::Status full = StoreStatus(); !full.ok()) calls_.AnswerAll(CannotStore(full));
}

void CoreLoop::Stop() {
  if (stopping_.exchange(true)) return;
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  calls_.AnswerAll(absl::UnavailableError("the coordinator is stopping"));
}

void CoreLoop::Post(core::Event event, std::function<void()> done) {
  std::lock_guard lock(mutex_);
  queue_.push_back({std::move(event), std::move(done), nullptr});
  wake_.notify_one();
}

void CoreLoop::PostVerb(const std::function<core::Event(core::CallId)>& make, CallTable::Callback callback) {
  absl::Status refused;
  {
    std::lock_guard lock(mutex_);
    if (!store_status_.ok()) {
      refused = CannotStore(store_status_);
    } else if (stopping_ || queue_.size() >= options_.queue_limit) {
      refused = stopping_ ? absl::UnavailableError("the coordinator is stopping")
                          : absl::ResourceExhaustedError("too many requests; try later");
    }
  }
  if (!refused.ok()) return callback(core::Reply{.status = refused});
  const core::CallId call = calls_.Add(std::move(callback));
  Post(make(call));
  if (draining_) Drain();  // it may have come in just behind the others
}

void CoreLoop::PostRead(Read read) {
  std::lock_guard lock(mutex_);
  queue_.push_back({core::DeadlineReached{}, nullptr, std::move(read)});
  wake_.notify_one();
}

absl::Status CoreLoop::StoreStatus() const {
  std::lock_guard lock(mutex_);
  return store_status_;
}

void CoreLoop::SetStoreStatus(absl::Status status) {
  std::lock_guard lock(mutex_);
  store_status_ = std::move(status);
}

void CoreLoop::WaitForWork(absl::Time now) {
  const absl::Time until = std::min(
      {core_.NextDeadline(), now + options_.core.lease / 8, now + absl::Milliseconds(250), watches_.NextFlush()});
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, absl::ToChronoMicroseconds(std::max(until - now, absl::ZeroDuration())),
                 [this] { return stopping_ || !queue_.empty(); });
}

void CoreLoop::Run() {
  std::vector<core::Effect> effects = core_.Recover(clock_.Now());
  std::vector<std::function<void()>> done;
  WriteBatch recovered;
  Persist(effects, recovered);
  CommitAndRelease(recovered, effects, done);
  Sample(clock_.Now());
  absl::Time last = clock_.Now();
  while (!stopping_) {
    WaitForWork(clock_.Now());
    const absl::Time now = clock_.Now();
    // We wake at least every lease / 8: a longer gap is our own pause, and nobody is blamed for it.
    if (now - last > options_.core.lease / 4) {
      Log(spdlog::level::warn, "OwnPause", {},
          absl::StrCat("stood still for ", absl::FormatDuration(now - last), "; leases are moved by it"));
      effects = core_.Step(core::ClockGap{now - last}, now);
      WriteBatch moved;
      Persist(effects, moved);
      CommitAndRelease(moved, effects, done);
    }
    std::deque<Item> items;
    {
      std::lock_guard lock(mutex_);
      const size_t count = std::min(kBatch, queue_.size());
      std::move(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count), std::back_inserter(items));
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
    }
    Process(items, now);
    Sample(now);
    last = now;  // a batch that waited for the disk is a pause too
  }
}

void CoreLoop::Process(std::deque<Item>& items, absl::Time now) {
  std::vector<core::Effect> effects;
  std::vector<std::function<void()>> done;
  std::vector<Read> reads;
  WriteBatch batch;
  auto step = [&](const core::Event& event) {
    std::vector<core::Effect> more = core_.Step(event, now);
    Persist(more, batch);
    std::move(more.begin(), more.end(), std::back_inserter(effects));
  };
  if (core_.NextDeadline() <= now) step(core::DeadlineReached{});
  for (Item& item : items) {
    if (item.read) {
      reads.push_back(std::move(item.read));
      continue;
    }
    step(item.event);
    if (item.done) done.push_back(std::move(item.done));
  }
  CommitAndRelease(batch, effects, done);
  for (Read& read : reads) read(core_, now);
  watches_.Flush(core_, *store_, [this](const core::JobId& job) { return JobDir(job); }, now);
}

// Adds the records of one step to the batch. What the store could not read back at the next start is not written: it
// stays as it was on the disk, whoever asked for it hears so, and the service goes on.
void CoreLoop::Persist(std::vector<core::Effect>& effects, WriteBatch& batch) {
  for (size_t i = 0; i < effects.size(); ++i) {
    if (const auto* put = std::get_if<core::PutRecord>(&effects[i])) {
      absl::StatusOr<std::pair<std::string, std::string>> record = EncodeChecked(*put, store_->frame());
      if (record.ok()) {
        batch.operations.push_back({std::move(record->first), std::move(record->second)});
        continue;
      }
      metrics_->OnRecordRefused();
      Log(spdlog::level::critical, "RecordRefused", {{"job", JobOf(*put).str()}},
          absl::StrCat(record.status().message(), ". It was not written: an error of ours, please report it"));
      if (!std::holds_alternative<core::JobEventEntry>(put->record))
        Post(core::RecordPutAside{JobOf(*put), std::string(record.status().message())});
      effects[i] = core::Touched{JobOf(*put), {}};
      Refuse(effects, record.status());
    } else if (const auto* deletion = std::get_if<core::DeleteRecord>(&effects[i])) {
      batch.operations.push_back({EncodeKey(*deletion), std::nullopt});
    }
  }
}

void CoreLoop::CommitAndRelease(const WriteBatch& batch, std::vector<core::Effect>& effects,
                                std::vector<std::function<void()>>& done) {
  if (!batch.empty()) CommitOrWait(batch);
  if (stopping_ && !StoreStatus().ok()) return;  // never durable: nobody is told
  metrics_->OnCommit(effects, core_.state());
  EffectRunner runner{core_, sessions_, calls_, watches_, *metrics_, options_.checkpoint_root, clock_.Now()};
  for (core::Effect& effect : effects) runner.Run(effect);
  for (auto& callback : done) callback();
  effects.clear();
  done.clear();
}

void CoreLoop::CommitOrWait(const WriteBatch& batch) {
  while (true) {
    const auto began = std::chrono::steady_clock::now();
    const absl::Status status = store_->Commit(batch);
    metrics_->OnStoreWrite(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(),
                           status.ok());
    if (status.ok()) {
      if (!StoreStatus().ok()) Log(spdlog::level::info, "StoreRecovered", {}, "the store can be written again");
      return SetStoreStatus(absl::OkStatus());
    }
    if (!absl::IsResourceExhausted(status)) {
      // Nothing of this batch was told to anyone; what is on disk is the truth.
      Log(spdlog::level::critical, "StoreBroken", {},
          absl::StrCat(status.message(), ". Nothing unwritten was acknowledged: clear the cause and start again"));
      _exit(kExitStoreBroken);
    }
    if (StoreStatus().ok()) Log(spdlog::level::err, "StoreFull", {}, std::string(status.message()));
    SetStoreStatus(status);
    if (draining_) calls_.AnswerAll(CannotStore(status));
    if (ReadUntil(clock_.Now() + kRetryStore)) return;
  }
}

// Answers reads while nothing can be written. They see the batch that waits, which is the truth unless we die before
// the disk has room. True when the loop is to stop.
bool CoreLoop::ReadUntil(absl::Time until) {
  while (true) {
    std::vector<Read> reads;
    {
      std::unique_lock lock(mutex_);
      const auto is_read = [](const Item& item) { return item.read != nullptr; };
      wake_.wait_for(lock, absl::ToChronoMicroseconds(until - clock_.Now()),
                     [&] { return stopping_ || std::any_of(queue_.begin(), queue_.end(), is_read); });
      if (stopping_) return true;
      std::deque<Item> others;
      for (Item& item : queue_) {
        if (item.read) {
          reads.push_back(std::move(item.read));
        } else {
          others.push_back(std::move(item));
        }
      }
      queue_.swap(others);
    }
    if (reads.empty()) return false;
    for (Read& read : reads) read(core_, clock_.Now());
  }
}

void CoreLoop::Sample(absl::Time now) {
  if (now - sampled_ < kSampleEvery) return;
  sampled_ = now;
  metrics_->OnSample(core_.state(), now);
}

}  // namespace athanor

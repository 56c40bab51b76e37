#include "athanor/checkpoint/file_checkpoint_manager.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/failpoint.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/storage_id.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/checkpoint/leftover_files.h"
#include "athanor/checkpoint/policy/retention.h"
#include "athanor/checkpoint/policy/save_decision.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/checkpoint/staging.h"
#include "athanor/checkpoint/store/await_object.h"
#include "athanor/checkpoint/store/checkpoint_store.h"
#include "athanor/io/dtype_names.h"

namespace athanor {
namespace {

using Clock = std::chrono::steady_clock;
constexpr absl::Duration kLastWait = absl::Seconds(10);
constexpr int64_t kWriteChunk = 1 << 20;
constexpr int64_t kSyncEvery = 64 << 20;  // so that a slow disk shows what it has written

// An infinite wait is a bounded one that is long: chrono cannot carry infinity.
std::chrono::milliseconds ChronoLimit(absl::Duration timeout) {
  return absl::ToChronoMilliseconds(std::min(timeout, absl::Hours(24)));
}

double SecondsSince(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

std::string NewAttempt() {
  std::random_device device;
  return absl::StrFormat("%08x", device());
}

absl::StatusOr<std::optional<torch::ScalarType>> ExportDtype(const std::string& name) {
  const std::optional<torch::ScalarType> dtype = DtypeOfOption(name);
  if (name.empty() || dtype.has_value()) return dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("checkpoint.export_dtype: '", name, "'; allowed: ", NamesOf(&DtypeNames::option, ", ")));
}

}  // namespace

class FileCheckpointManager::Impl {
 public:
  Impl(CheckpointManagerOptions options, CheckpointCommitter* committer, std::optional<torch::ScalarType> export_dtype)
      : options_(std::move(options)),
        committer_(committer),
        export_dtype_(export_dtype),
        attempt_(NewAttempt()),
        store_(StoreAt(options_.root)) {
    if (options_.load_only) return;
    writer_ = std::thread([this] { WriterLoop(); });
    committing_ = std::thread([this] { CommitLoop(); });
  }

  ~Impl() {
    Wait(kLastWait).IgnoreError();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (writer_.joinable()) writer_.join();
    if (committing_.joinable()) committing_.join();
  }

  absl::Status Save(const TrainingState& state, const SaveRequest& request) {
    if (options_.load_only) return absl::OkStatus();
    const Clock::time_point began = Clock::now();
    std::unique_lock lock(mutex_);
    if (!HasRoom() && !request.must_wait) {
      ++stats_.skipped;
      return absl::OkStatus();
    }
    changed_.wait(lock, [this] { return HasRoom(); });
    ++saves_;
    lock.unlock();  // nothing is being written: the staging memory is ours
    const absl::Status filled = staged_.Fill(state, options_.rank, options_.world_size, export_dtype_);
    ATHANOR_FAILPOINT("checkpoint.after_stage");
    if (absl::IsInvalidArgument(filled)) return filled;
    lock.lock();
    job_ = Job{.request = request, .meta = state.meta, .began = began, .save = saves_, .staged = filled};
    changed_.notify_all();
    if (!options_.async) changed_.wait(lock, [this] { return Idle(); });
    stats_.stall_seconds += SecondsSince(began);
    return absl::OkStatus();
  }

  absl::Status WaitForRoom(absl::Duration timeout) {
    const Clock::time_point began = Clock::now();
    std::unique_lock lock(mutex_);
    const bool written = changed_.wait_for(lock, ChronoLimit(timeout), [this] { return !job_.has_value(); });
    stats_.stall_seconds += SecondsSince(began);
    if (!written) return absl::DeadlineExceededError("a checkpoint is still being written");
    if (HasRoom()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(commits_.size(), " checkpoints wait for their commit"));
  }

  absl::Status Wait(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, ChronoLimit(timeout), [this] { return Idle(); }))
      return absl::DeadlineExceededError("a checkpoint is still being written");
    return last_;
  }

  absl::Status Point(int64_t step, const std::vector<std::string>& aliases) {
    if (options_.load_only || options_.rank != 0 || committer_->OwnsRetention()) return absl::OkStatus();
    const std::string manifest = ManifestName(step);
    if (!Exists(*store_, manifest).value_or(true))
      return absl::NotFoundError(absl::StrCat("no checkpoint at ", store_->Describe(manifest)));
    RETURN_IF_ERROR(NameAndRetain({.step = step, .aliases = aliases}));
    std::lock_guard lock(mutex_);
    stats_.last_aliases = aliases;
    return absl::OkStatus();
  }

  void ReportEvaluation(const SaveRequest& request) {
    if (options_.load_only || options_.rank != 0) return;
    const std::lock_guard lock(mutex_);
    evaluations_.push_back(request);
    changed_.notify_all();
  }

  CheckpointStats stats() const {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  const CheckpointManagerOptions& options() const { return options_; }

 private:
  struct Job {
    SaveRequest request;
    nlohmann::json meta;
    Clock::time_point began;
    int64_t save = 0;
    absl::Status staged;
  };
  // A save whose shard is on disk.
  struct Commit {
    Job job;
    std::string folder;
    ShardInfo shard;
    std::map<std::string, int> assignment;  // tensor -> rank whose shard has it
    std::set<std::string> before;           // what was in the folder when this save began to write
  };

  // What became of a save: whether the checkpoint is there, and whether all that follows it was done.
  struct Outcome {
    absl::Status saved, after;
  };

  static std::string ManifestName(int64_t step) { return absl::StrCat(CheckpointDirName(step), "/", kManifestFile); }
  void Remove(const std::string& folder, const std::string& file) {  // best effort
    store_->Delete(absl::StrCat(folder, "/", file)).IgnoreError();
  }

  bool HasRoom() const {
    return !job_.has_value() && std::max(commits_.size(), evaluations_.size()) < kMaxPendingCommits;
  }
  bool Idle() const { return !job_.has_value() && commits_.empty() && evaluations_.empty(); }
  // Commits come first: an evaluation's checkpoint is among them, or done.
  bool EvaluationReady() const {
    return commits_.empty() && !evaluations_.empty() &&
           !(job_.has_value() && job_->request.step == evaluations_.front().step);
  }

  void WriterLoop() {
    pthread_setname_np(pthread_self(), "athanor-writer");
    setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 5);  // training goes first
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || job_.has_value(); });
      if (!job_.has_value()) return;
      Job& job = *job_;
      lock.unlock();
      const std::string folder = CheckpointDirName(job.request.step);
      // A step that is saved again gets files of its own: its manifest names the old ones until it is replaced.
      const std::string file = ShardFileName(options_.rank, options_.world_size, absl::StrCat(attempt_, "-", job.save));
      std::set<std::string> before = FilesIn(*store_, folder);
      absl::StatusOr<ShardInfo> shard = job.staged.ok() ? WriteShard(folder, file, job.save) : job.staged;
      absl::Status failed;
      if (!shard.ok()) {
        Remove(folder, file);  // no vote has named it
        failed = GiveUp(job.request.step, shard.status());
      }
      lock.lock();
      if (shard.ok()) {
        commits_.push_back({std::move(job), folder, *std::move(shard), staged_.assignment(), std::move(before)});
      } else {
        CountFailure(failed);
        last_ = failed;
      }
      job_.reset();
      changed_.notify_all();
    }
  }

  void CommitLoop() {
    pthread_setname_np(pthread_self(), "athanor-commit");
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] {
        return !commits_.empty() || EvaluationReady() || (stopping_ && !job_.has_value() && evaluations_.empty());
      });
      if (!commits_.empty()) {
        FinishCommit(lock);
      } else if (!evaluations_.empty()) {
        FinishEvaluation(lock);
      } else {
        return;
      }
      changed_.notify_all();
    }
  }

  void FinishCommit(std::unique_lock<std::mutex>& lock) {
    const Commit& commit = commits_.front();  // stays there, so that room and idleness count it
    lock.unlock();
    const Outcome outcome = VoteAndPublish(commit);
    lock.lock();
    if (outcome.saved.ok()) {
      ++stats_.saved;
      stats_.bytes += commit.shard.bytes;
      stats_.last_committed_step = std::max(stats_.last_committed_step, commit.job.request.step);
      stats_.last_aliases = commit.job.request.aliases;
    } else {
      CountFailure(outcome.saved);
    }
    CountUnnamed(outcome.after);
    last_ = outcome.saved;
    commits_.pop_front();
  }

  void FinishEvaluation(std::unique_lock<std::mutex>& lock) {
    const SaveRequest& evaluation = evaluations_.front();
    lock.unlock();
    const absl::Status status = AttachEvaluation(evaluation);
    lock.lock();
    CountUnnamed(status);
    if (status.ok() && stats_.last_committed_step == evaluation.step)
      stats_.last_aliases.insert(stats_.last_aliases.end(), evaluation.aliases.begin(), evaluation.aliases.end());
    evaluations_.pop_front();
  }

  void CountFailure(const absl::Status& status) {
    ++stats_.failed;
    stats_.last_error = std::string(status.message());
  }

  void CountUnnamed(const absl::Status& status) {
    if (status.ok()) return;
    ++stats_.unnamed;
    stats_.last_error = std::string(status.message());
  }

  absl::Status GiveUp(int64_t step, const absl::Status& status) {
    committer_->Abandon(step, std::string(status.message()));
    return Annotate(status, absl::StrCat("checkpoint ", CheckpointDirName(step)));
  }

  // Whether no manifest names this shard, nor ever will. Only rank 0 writes one; another rank whose vote got no answer
  // cannot know.
  bool Unwanted(const Commit& commit, const absl::Status& refused) const {
    if (options_.rank != 0) return absl::IsAborted(refused) || absl::IsAlreadyExists(refused);
    const absl::StatusOr<bool> there = Exists(*store_, absl::StrCat(commit.folder, "/", kManifestFile));
    if (!there.ok() || !*there) return there.ok();
    const absl::StatusOr<Manifest> manifest = ReadManifest(store_->Describe(commit.folder));
    return manifest.ok() && std::none_of(manifest->shards.begin(), manifest->shards.end(),
                                         [&](const ShardInfo& shard) { return shard.file == commit.shard.file; });
  }

  Outcome VoteAndPublish(const Commit& commit) {
    const int64_t step = commit.job.request.step;
    const absl::StatusOr<std::vector<ShardInfo>> shards = committer_->CommitShard(step, commit.shard);
    absl::StatusOr<ManifestSummary> published = ManifestSummary{};
    if (shards.ok() && options_.rank == 0) published = WriteManifest(commit, *shards);
    const absl::Status refused = shards.ok() ? published.status() : shards.status();
    if (!refused.ok()) {
      if (Unwanted(commit, refused)) Remove(commit.folder, commit.shard.file);
      // An earlier generation committed this step: its files are as good as ours.
      if (absl::IsAlreadyExists(refused)) return {};
      return {.saved = GiveUp(step, refused), .after = {}};
    }
    if (options_.rank != 0) return {};
    const std::string name = CheckpointDirName(step);
    if (const absl::Status told = committer_->CommitManifest(*published); !told.ok())
      return {
          .saved = Annotate(told, absl::StrCat("checkpoint ", name, " is whole on disk, but not known as committed")),
          .after = {}};
    return {.saved = {},
            .after = Annotate(NameCommitted(commit, *shards), absl::StrCat("checkpoint ", name, " is saved"))};
  }

  absl::Status NameCommitted(const Commit& commit, const std::vector<ShardInfo>& shards) {
    RemoveLeftovers(*store_, commit.folder, commit.before, shards);
    if (committer_->OwnsRetention()) return absl::OkStatus();
    RemoveUnfinished(*store_, commit.job.request.step);
    return NameAndRetain(commit.job.request);
  }

  absl::Status AttachEvaluation(const SaveRequest& request) {
    const std::string name = CheckpointDirName(request.step), manifest_name = ManifestName(request.step);
    if (!Exists(*store_, manifest_name).value_or(true)) return absl::OkStatus();  // that save has failed, and said so
    const auto attach = [&]() -> absl::Status {
      ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(store_->Describe(name)));
      manifest.metrics = request.metrics;
      if (request.evaluated && manifest.meta.is_object()) manifest.meta["evaluated"] = true;
      RETURN_IF_ERROR(store_->Put(manifest_name, EncodeManifest(manifest)));
      return committer_->ReportEvaluation({request.step, request.metrics, request.is_best});
    };
    absl::Status status = attach();
    // The best one gets its name even if its manifest could not be written anew.
    if (!committer_->OwnsRetention()) status.Update(NameAndRetain(request));
    return Annotate(status, absl::StrCat("checkpoint ", name, " is saved; its evaluation"));
  }

  void RemoveIfStorageIsAway(const std::string& folder) const {
    if (options_.storage.empty() || CheckStorage(options_.storage_root, options_.storage).ok()) return;
    store_->Delete(folder).IgnoreError();  // a folder that is not empty stays
  }

  absl::StatusOr<ShardInfo> WriteShard(const std::string& folder, const std::string& file, int64_t save) {
    ATHANOR_FAILPOINT("checkpoint.before_shard_write");
    if (!options_.storage.empty()) RETURN_IF_ERROR(CheckStorage(options_.storage_root, options_.storage));
    RETURN_IF_ERROR(staged_.Seal());
    // It may go now: then the folder that is made lies in the empty mount point.
    absl::Cleanup leave_nothing = [&] { RemoveIfStorageIsAway(folder); };
    ASSIGN_OR_RETURN(const std::unique_ptr<StoreWriter> out, store_->NewWriter(absl::StrCat(folder, "/", file)));
    const int64_t bytes = static_cast<int64_t>(staged_.header().size()) + staged_.data_bytes();
    ShardInfo shard{.rank = options_.rank, .file = file, .bytes = bytes, .crc32c = 0, .save = save};
    shard.crc32c = Crc32c(0, staged_.header().data(), staged_.header().size());
    RETURN_IF_ERROR(out->Append(staged_.header().data(), staged_.header().size()));
    for (int64_t at = 0; at < staged_.data_bytes(); at += kWriteChunk) {
      const auto size = static_cast<size_t>(std::min(kWriteChunk, staged_.data_bytes() - at));
      shard.crc32c = Crc32c(shard.crc32c, staged_.data() + at, size);
      RETURN_IF_ERROR(out->Append(staged_.data() + at, size));
      if ((at + kWriteChunk) % kSyncEvery == 0) RETURN_IF_ERROR(out->Sync());
      if (options_.on_bytes) options_.on_bytes("writing a checkpoint", static_cast<int64_t>(size));
    }
    RETURN_IF_ERROR(out->Sync());
    if (options_.on_bytes) options_.on_bytes("committing a checkpoint", 1);
    RETURN_IF_ERROR(HitFailpoint("checkpoint.before_shard_rename"));
    RETURN_IF_ERROR(out->Commit());
    std::move(leave_nothing).Cancel();
    ATHANOR_FAILPOINT("checkpoint.after_shard_rename");
    return shard;
  }

  absl::StatusOr<ManifestSummary> WriteManifest(const Commit& commit, const std::vector<ShardInfo>& shards) {
    const Job& job = commit.job;
    Manifest manifest;
    manifest.step = job.request.step;
    manifest.world_size = options_.world_size;
    manifest.meta = job.meta;
    manifest.metrics = job.request.metrics;
    manifest.created_at = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
    ManifestSummary summary{job.request.step, 0, job.request.metrics, job.request.is_best, 0};
    AwaitOptions patient;
    patient.waiting = [this] {
      if (options_.on_bytes) options_.on_bytes("waiting for a shard of another rank", 1);
    };
    for (const ShardInfo& shard : shards) {
      summary.bytes += shard.bytes;
      const std::string name = absl::StrCat(commit.folder, "/", shard.file);
      ASSIGN_OR_RETURN(const std::unique_ptr<StoreReader> reader, AwaitObject(*store_, name, shard.bytes, patient));
      ASSIGN_OR_RETURN(const ShardBegin begin, ReadShardBegin(*reader, store_->Describe(name)));
      RETURN_IF_ERROR(AddShard(shard, begin, &manifest));
    }
    for (const auto& [name, rank] : commit.assignment) {
      if (!manifest.tensors.contains(name))
        return absl::DataLossError(absl::StrCat("tensor '", name, "' is missing in the shard of rank ", rank));
    }
    for (const auto& [name, tensor] : manifest.tensors)  // parts that leave a hole are no checkpoint
      RETURN_IF_ERROR(PlanReads({{name, tensor}}, {{name, WholeBox(tensor.shape)}}).status());
    RETURN_IF_ERROR(HitFailpoint("checkpoint.before_manifest_rename"));
    RETURN_IF_ERROR(store_->Put(ManifestName(job.request.step), EncodeManifest(manifest)));
    ATHANOR_FAILPOINT("checkpoint.after_manifest_rename");
    summary.save_seconds = SecondsSince(job.began);
    return summary;
  }

  // Names move before anything is deleted: whoever reads them finds a whole checkpoint at any time. One that could not
  // be moved does not hold the others up; then nothing is deleted.
  absl::Status NameAndRetain(const SaveRequest& request) {
    NamedCheckpoints input;
    const std::map<std::string, int64_t> before = ReadAliases(options_.root);
    absl::Status named;
    for (const std::string& alias : request.aliases) {
      const auto old = before.find(alias);
      if (old != before.end() && old->second != request.step) input.abandoned.insert(old->second);
      named.Update(Annotate(PointAlias(options_.root, alias, request.step), absl::StrCat("its name '", alias, "'")));
    }
    RETURN_IF_ERROR(named);
    if (request.is_best && request.aliases.empty()) best_step_ = request.step;
    ASSIGN_OR_RETURN(const std::vector<ResumeCandidate> found, ListCheckpoints(options_.root));
    for (const ResumeCandidate& one : found) input.steps.push_back(one.step);
    input.aliases = ReadAliases(options_.root);
    if (best_step_ >= 0) input.aliases.emplace("best", best_step_);
    const RetentionDecision retention = ChooseRetention(ByNames(input), options_.keep_latest_k);
    // Those that lost their place lose the history's names too; they may live on under another one.
    const std::set<int64_t> beyond(retention.beyond.begin(), retention.beyond.end());
    for (const auto& [alias, step] : input.aliases) {
      if (IsHistoryName(alias) && beyond.contains(step)) RemoveAlias(options_.root, alias);
    }
    for (const int64_t gone : retention.remove) {
      store_->Delete(ManifestName(gone)).IgnoreError();  // first: from here on it is no checkpoint
      store_->Delete(absl::StrCat(CheckpointDirName(gone), "/")).IgnoreError();
    }
    return absl::OkStatus();
  }

  const CheckpointManagerOptions options_;
  CheckpointCommitter* const committer_;
  const std::optional<torch::ScalarType> export_dtype_;
  const std::string attempt_;
  const std::shared_ptr<CheckpointStore> store_;
  StagedShard staged_;      // the training thread's while no job is there, else the writer's
  int64_t best_step_ = -1;  // commit thread
  int64_t saves_ = 0;       // training thread

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Job> job_;               // being written
  std::deque<Commit> commits_;           // written, in the order of their steps; the first is being committed
  std::deque<SaveRequest> evaluations_;  // of saved steps, in their order; the first is being attached
  absl::Status last_;
  CheckpointStats stats_;
  bool stopping_ = false;
  std::thread writer_, committing_;
};

absl::StatusOr<std::unique_ptr<FileCheckpointManager>> FileCheckpointManager::Create(CheckpointManagerOptions options,
                                                                                     CheckpointCommitter* committer) {
  if (options.world_size < 1 || options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", options.rank, " of ", options.world_size));
  }
  if (committer == nullptr && !options.load_only)
    return absl::InvalidArgumentError("a checkpoint manager that saves needs a committer");
  ASSIGN_OR_RETURN(const std::optional<torch::ScalarType> dtype, ExportDtype(options.export_dtype));
  return std::unique_ptr<FileCheckpointManager>(
      new FileCheckpointManager(std::make_unique<Impl>(std::move(options), committer, dtype)));
}

FileCheckpointManager::FileCheckpointManager(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FileCheckpointManager::~FileCheckpointManager() = default;
absl::Status FileCheckpointManager::Save(const TrainingState& state, const SaveRequest& request) {
  return impl_->Save(state, request);
}
absl::Status FileCheckpointManager::Point(int64_t step, const std::vector<std::string>& aliases) {
  return impl_->Point(step, aliases);
}
void FileCheckpointManager::ReportEvaluation(const SaveRequest& request) {
  impl_->ReportEvaluation(request);
}
absl::Status FileCheckpointManager::WaitForRoom(absl::Duration timeout) {
  return impl_->WaitForRoom(timeout);
}
absl::Status FileCheckpointManager::Wait(absl::Duration timeout) {
  return impl_->Wait(timeout);
}
absl::StatusOr<std::vector<ResumeCandidate>> FileCheckpointManager::ListLocal() const {
  return ListCheckpoints(impl_->options().root);
}
absl::StatusOr<RestoredState> FileCheckpointManager::Read(const ResumeCandidate& candidate) const {
  return ReadCheckpoint(candidate, impl_->options().rank, impl_->options().world_size, impl_->options().on_bytes);
}
CheckpointStats FileCheckpointManager::stats() const {
  return impl_->stats();
}

}  // namespace athanor

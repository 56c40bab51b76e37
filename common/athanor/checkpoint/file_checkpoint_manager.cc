#include "athanor/checkpoint/file_checkpoint_manager.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/failpoint.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/layout.h"
#include "athanor/checkpoint/manifest.h"
#include "athanor/checkpoint/retention.h"
#include "athanor/checkpoint/staging.h"

namespace athanor {
namespace {

using Clock = std::chrono::steady_clock;
constexpr absl::Duration kLastWait = absl::Seconds(10);
constexpr int64_t kWriteChunk = 1 << 20;

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
  if (name.empty()) return std::nullopt;
  if (name == "fp32") return torch::kFloat;
  if (name == "fp16") return torch::kHalf;
  if (name == "bf16") return torch::kBFloat16;
  if (name == "fp64") return torch::kDouble;
  return absl::InvalidArgumentError(
      absl::StrCat("checkpoint.export_dtype: '", name, "'; allowed: fp32, fp16, bf16, fp64"));
}

}  // namespace

class FileCheckpointManager::Impl {
 public:
  Impl(CheckpointManagerOptions options, CheckpointCommitter* committer, std::optional<torch::ScalarType> export_dtype)
      : options_(std::move(options)), committer_(committer), export_dtype_(export_dtype), attempt_(NewAttempt()) {
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
    lock.unlock();  // nothing is being written: the staging memory is ours
    const absl::Status filled = staged_.Fill(state, options_.rank, options_.world_size, export_dtype_);
    ATHANOR_FAILPOINT("checkpoint.after_stage");
    lock.lock();
    if (!filled.ok()) {
      if (absl::IsInvalidArgument(filled)) return filled;
      CountFailure(filled);
      return absl::OkStatus();
    }
    job_ = Job{request, state.meta, began};
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
    const std::string manifest = absl::StrCat(options_.root, "/", CheckpointDirName(step), "/", kManifestFile);
    if (!std::filesystem::exists(manifest)) return absl::NotFoundError(absl::StrCat("no checkpoint at ", manifest));
    RETURN_IF_ERROR(NameAndRetain(step, aliases));
    std::lock_guard lock(mutex_);
    stats_.last_aliases = aliases;
    return absl::OkStatus();
  }

  absl::Status Measured(int64_t step, const std::map<std::string, double>& metrics, bool is_best) {
    if (options_.load_only || options_.rank != 0) return absl::OkStatus();
    const std::string directory = absl::StrCat(options_.root, "/", CheckpointDirName(step));
    ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(directory));
    manifest.metrics = metrics;
    RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(directory, "/", kManifestFile), EncodeManifest(manifest)));
    ManifestSummary summary{.step = step, .metrics = metrics, .is_best = is_best};
    for (const ShardInfo& shard : manifest.shards) summary.bytes += shard.bytes;
    return committer_->CommitManifest(summary);
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
  };
  // A save whose shard is on disk.
  struct Commit {
    Job job;
    std::string directory;
    ShardInfo shard;
    std::map<std::string, int> assignment;  // tensor -> rank whose shard has it
    std::set<std::string> before;           // what was in the directory when this save began to write
  };

  bool HasRoom() const { return !job_.has_value() && commits_.size() < kMaxPendingCommits; }
  bool Idle() const { return !job_.has_value() && commits_.empty(); }

  void WriterLoop() {
    pthread_setname_np(pthread_self(), "athanor-writer");
    setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 5);  // training goes first
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || job_.has_value(); });
      if (!job_.has_value()) return;
      Job& job = *job_;
      lock.unlock();
      const std::string directory = absl::StrCat(options_.root, "/", CheckpointDirName(job.request.step));
      // A step that is saved again gets files of its own: its manifest names the old ones until it is replaced.
      const std::string file = ShardFileName(options_.rank, options_.world_size, absl::StrCat(attempt_, "-", ++saves_));
      std::set<std::string> before = FilesIn(directory);
      absl::StatusOr<ShardInfo> shard = WriteShard(directory, file);
      absl::Status failed;
      if (!shard.ok()) failed = GiveUp(job.request.step, directory + "/" + file, shard.status());
      lock.lock();
      if (shard.ok()) {
        commits_.push_back({std::move(job), directory, *std::move(shard), staged_.assignment(), std::move(before)});
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
      changed_.wait(lock, [this] { return !commits_.empty() || (stopping_ && !job_.has_value()); });
      if (commits_.empty()) return;
      const Commit& commit = commits_.front();  // stays there, so that room and idleness count it
      lock.unlock();
      const absl::Status status = Finish(commit);
      lock.lock();
      if (status.ok()) {
        ++stats_.saved;
        stats_.bytes += commit.shard.bytes;
        stats_.last_committed_step = std::max(stats_.last_committed_step, commit.job.request.step);
        stats_.last_aliases = commit.job.request.aliases;
      } else {
        CountFailure(status);
      }
      last_ = status;
      commits_.pop_front();
      changed_.notify_all();
    }
  }

  void CountFailure(const absl::Status& status) {
    ++stats_.failed;
    stats_.last_error = std::string(status.message());
  }

  absl::Status GiveUp(int64_t step, const std::string& path, const absl::Status& status) {
    RemoveFile(path);
    committer_->Abandon(step, std::string(status.message()));
    return Annotate(status, absl::StrCat("checkpoint ", CheckpointDirName(step)));
  }

  absl::Status Finish(const Commit& commit) {
    const std::string path = commit.directory + "/" + commit.shard.file;
    const absl::Status status = VoteAndPublish(commit);
    if (absl::IsAlreadyExists(status)) {  // an earlier generation committed this step: its files are as good as ours
      RemoveFile(path);
      return absl::OkStatus();
    }
    return status.ok() ? status : GiveUp(commit.job.request.step, path, status);
  }

  absl::Status VoteAndPublish(const Commit& commit) {
    ASSIGN_OR_RETURN(const std::vector<ShardInfo> shards,
                     committer_->CommitShard(commit.job.request.step, commit.shard));
    if (options_.rank != 0) return absl::OkStatus();
    return WriteManifest(commit, shards);
  }

  absl::StatusOr<ShardInfo> WriteShard(const std::string& directory, const std::string& file) {
    ATHANOR_FAILPOINT("checkpoint.before_shard_write");
    RETURN_IF_ERROR(EnsureDir(directory));
    ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::Create(directory + "/" + file));
    ShardInfo shard{options_.rank, file, static_cast<int64_t>(staged_.header().size()) + staged_.data_bytes(), 0};
    shard.crc32c = Crc32c(0, staged_.header().data(), staged_.header().size());
    RETURN_IF_ERROR(out.Append(staged_.header().data(), staged_.header().size()));
    for (int64_t at = 0; at < staged_.data_bytes(); at += kWriteChunk) {
      const auto size = static_cast<size_t>(std::min(kWriteChunk, staged_.data_bytes() - at));
      shard.crc32c = Crc32c(shard.crc32c, staged_.data() + at, size);
      RETURN_IF_ERROR(out.Append(staged_.data() + at, size));
    }
    RETURN_IF_ERROR(out.Sync());
    RETURN_IF_ERROR(HitFailpoint("checkpoint.before_shard_rename"));
    RETURN_IF_ERROR(out.Commit());
    ATHANOR_FAILPOINT("checkpoint.after_shard_rename");
    return shard;
  }

  absl::Status WriteManifest(const Commit& commit, const std::vector<ShardInfo>& shards) {
    const Job& job = commit.job;
    const std::string& directory = commit.directory;
    Manifest manifest;
    manifest.step = job.request.step;
    manifest.world_size = options_.world_size;
    manifest.shards = shards;
    manifest.tensors = commit.assignment;
    manifest.meta = job.meta;
    manifest.metrics = job.request.metrics;
    manifest.created_at = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
    ManifestSummary summary{job.request.step, 0, job.request.metrics, job.request.is_best, 0};
    std::set<std::string> kept = {kManifestFile};
    for (const ShardInfo& shard : shards) {
      summary.bytes += shard.bytes;
      kept.insert(shard.file);
    }
    RETURN_IF_ERROR(HitFailpoint("checkpoint.before_manifest_rename"));
    RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(directory, "/", kManifestFile), EncodeManifest(manifest)));
    ATHANOR_FAILPOINT("checkpoint.after_manifest_rename");
    summary.save_seconds = SecondsSince(job.began);
    RETURN_IF_ERROR(committer_->CommitManifest(summary));
    RemoveLeftovers(commit, kept);
    if (committer_->OwnsRetention()) return absl::OkStatus();
    RemoveUnfinished(job.request.step);
    if (job.request.is_best && job.request.aliases.empty()) best_step_ = job.request.step;
    return NameAndRetain(job.request.step, job.request.aliases);
  }

  static std::set<std::string> FilesIn(const std::string& directory) {
    std::set<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error))
      names.insert(entry.path().filename().string());
    return names;
  }

  // Shards and temporary files of attempts that died before their commit, and of the save that this one replaces. What
  // came later belongs to a save of the same step that is still under way, of this rank or another.
  static void RemoveLeftovers(const Commit& commit, const std::set<std::string>& kept) {
    for (const std::string& name : commit.before) {
      const bool ours =
          name.compare(0, 6, "shard-") == 0 || (name.size() > 4 && name.compare(name.size() - 4, 4, ".tmp") == 0);
      if (ours && !kept.contains(name)) RemoveFile(commit.directory + "/" + name);
    }
  }

  // Folders of earlier steps that a killed writer left without a manifest. Commits are made in the order of the steps:
  // what has none by now never will.
  void RemoveUnfinished(int64_t before) const {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(options_.root, error)) {
      const std::optional<int64_t> step = StepOfDirName(entry.path().filename().string());
      if (!step.has_value() || *step >= before || std::filesystem::exists(entry.path() / kManifestFile)) continue;
      std::filesystem::remove_all(entry.path(), error);
    }
  }

  // Names move before anything is deleted: whoever reads them finds a whole checkpoint at any time.
  absl::Status NameAndRetain(int64_t step, const std::vector<std::string>& aliases) {
    RetentionInput input;
    const std::map<std::string, int64_t> before = ReadAliases(options_.root);
    for (const std::string& alias : aliases) {
      const auto old = before.find(alias);
      if (old != before.end() && old->second != step) input.abandoned.insert(old->second);
      RETURN_IF_ERROR(PointAlias(options_.root, alias, step));
    }
    ASSIGN_OR_RETURN(const std::vector<ResumeCandidate> found, ListCheckpoints(options_.root));
    for (const ResumeCandidate& one : found) input.steps.push_back(one.step);
    input.aliases = ReadAliases(options_.root);
    if (best_step_ >= 0) input.aliases.emplace("best", best_step_);
    input.keep_latest_k = options_.keep_latest_k;
    const Retention retention = ChooseRetention(input);
    for (const std::string& alias : retention.aliases) RemoveAlias(options_.root, alias);
    for (const int64_t gone : retention.steps) {
      const std::filesystem::path directory = std::filesystem::path(options_.root) / CheckpointDirName(gone);
      std::error_code error;
      std::filesystem::remove(directory / kManifestFile, error);  // first: from here on it is no checkpoint
      std::filesystem::remove_all(directory, error);
    }
    return absl::OkStatus();
  }

  const CheckpointManagerOptions options_;
  CheckpointCommitter* const committer_;
  const std::optional<torch::ScalarType> export_dtype_;
  const std::string attempt_;
  StagedShard staged_;      // the training thread's while no job is there, else the writer's
  int64_t best_step_ = -1;  // commit thread
  int64_t saves_ = 0;       // writer thread

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Job> job_;      // being written
  std::deque<Commit> commits_;  // written, in the order of their steps; the first is being committed
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
  // A folder that cannot be made now may be there at the first save: only then it matters, and training goes on
  // without.
  EnsureDir(options.root).IgnoreError();
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
absl::Status FileCheckpointManager::Measured(int64_t step, const std::map<std::string, double>& metrics, bool is_best) {
  return impl_->Measured(step, metrics, is_best);
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
  return ReadCheckpoint(candidate, impl_->options().rank, impl_->options().world_size);
}
CheckpointStats FileCheckpointManager::stats() const {
  return impl_->stats();
}

}  // namespace athanor

#include "athanor/checkpoint/local_committer.h"

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <random>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"

namespace athanor {
namespace {

constexpr int64_t kVoteLimit = 4096;
constexpr char kAttemptFile[] = "attempt";
constexpr int64_t kAttemptLimit = 64;

// Nothing on a shared file system tells when a file appears: look again after a while that nobody can cut short.
void Pause(absl::Duration span) {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, absl::ToChronoMilliseconds(span));
}

void RemoveEarlierVotes(CheckpointStore& store, const std::string& folder, const std::string& attempt) {
  const absl::StatusOr<std::vector<std::string>> names = store.List(folder);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (absl::StartsWith(name, "vote-") && !absl::StrContains(name, attempt))
      store.Delete(absl::StrCat(folder, "/", name)).IgnoreError();
  }
}

}  // namespace

LocalCommitter::LocalCommitter(std::string root, int rank, int world_size, absl::Duration patience, std::string attempt)
    : store_(StoreAt(root)), rank_(rank), world_size_(world_size), patience_(patience), attempt_(std::move(attempt)) {
  if (rank_ != 0 || world_size_ == 1 || !attempt_.empty()) return;
  std::random_device device;
  attempt_ = absl::StrFormat("%08x%08x", device(), device());
  announced_ = WriteAttempt().ok();  // else at the first save
}

std::string LocalCommitter::VoteName(int64_t step, int rank, int64_t save) const {
  return absl::StrFormat("%s/vote-%05d-of-%05d-%s-%d.json", CheckpointDirName(step), rank, world_size_, attempt_, save);
}

// The earlier attempt's name goes first, which a full disk does not prevent: nobody votes under it any more.
absl::Status LocalCommitter::WriteAttempt() {
  store_->Delete(kAttemptFile).IgnoreError();
  return store_->Put(kAttemptFile, attempt_);
}

absl::Status LocalCommitter::ReadAttempt(absl::Time deadline) {
  while (attempt_.empty()) {
    const absl::StatusOr<std::string> text = ReadAll(*store_, kAttemptFile, kAttemptLimit);
    if (text.ok() && IsPlainFileName(*text)) {
      attempt_ = *text;
    } else if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          store_->Describe(kAttemptFile), ": rank 0 did not write it within ", absl::FormatDuration(patience_)));
    } else {
      Pause(absl::Milliseconds(5));
    }
  }
  return absl::OkStatus();
}

absl::Status LocalCommitter::Vote(int64_t step, const ShardInfo& shard) {
  const nlohmann::json vote = {{"file", shard.file}, {"bytes", shard.bytes}, {"crc32c", shard.crc32c}};
  const std::string name = VoteName(step, rank_, shard.save);
  {
    const std::lock_guard lock(mutex_);
    if (!votes_.contains(step)) votes_.clear();  // earlier ones are counted, or too late
    votes_[step].push_back(name);
  }
  return store_->Put(name, vote.dump());
}

absl::StatusOr<std::vector<ShardInfo>> LocalCommitter::CommitShard(int64_t step, const ShardInfo& shard) {
  const absl::Time deadline = absl::Now() + patience_;
  if (rank_ != 0) {
    RETURN_IF_ERROR(ReadAttempt(deadline));
    RETURN_IF_ERROR(Vote(step, shard));
    return std::vector<ShardInfo>();
  }
  if (!announced_) RETURN_IF_ERROR(WriteAttempt());
  announced_ = true;
  std::vector<ShardInfo> shards = {shard};
  for (int rank = 1; rank < world_size_; ++rank) {
    {
      const std::lock_guard lock(mutex_);
      votes_[step].push_back(VoteName(step, rank, shard.save));
    }
    ASSIGN_OR_RETURN(ShardInfo one, WaitForVote(step, rank, shard.save, deadline));
    shards.push_back(std::move(one));
  }
  return shards;
}

absl::StatusOr<ShardInfo> LocalCommitter::WaitForVote(int64_t step, int rank, int64_t save, absl::Time deadline) const {
  while (true) {
    const absl::StatusOr<std::string> text = ReadAll(*store_, VoteName(step, rank, save), kVoteLimit);
    const nlohmann::json vote = text.ok() ? ParseJsonText(*text) : nlohmann::json();
    const auto holds = [&](const char* key, nlohmann::json::value_t type) {
      return vote.contains(key) && vote[key].type() == type;
    };
    if (holds("file", nlohmann::json::value_t::string) && holds("bytes", nlohmann::json::value_t::number_unsigned) &&
        holds("crc32c", nlohmann::json::value_t::number_unsigned)) {
      ShardInfo shard{rank, vote["file"].get<std::string>(), vote["bytes"].get<int64_t>(),
                      vote["crc32c"].get<uint32_t>(), save};
      const std::string name = absl::StrCat(CheckpointDirName(step), "/", shard.file);
      if (IsPlainFileName(shard.file) && store_->Size(name).value_or(-1) == shard.bytes) return shard;
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("rank ", rank, " did not finish its shard of step ", step,
                                                      " within ", absl::FormatDuration(patience_)));
    }
    Pause(absl::Milliseconds(5));
  }
}

void LocalCommitter::RemoveVotes(int64_t step) {
  std::vector<std::string> files;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = votes_.find(step); found != votes_.end()) files.swap(found->second);
    votes_.erase(step);
  }
  for (const std::string& file : files) store_->Delete(file).IgnoreError();
}

absl::Status LocalCommitter::CommitManifest(const ManifestSummary& summary) {
  RemoveVotes(summary.step);
  if (world_size_ > 1) RemoveEarlierVotes(*store_, CheckpointDirName(summary.step), attempt_);
  return absl::OkStatus();
}

absl::Status LocalCommitter::ReportEvaluation(const EvaluationSummary&) {
  return absl::OkStatus();
}

void LocalCommitter::Abandon(int64_t step, const std::string&) {
  RemoveVotes(step);
}

void LocalCommitter::ReportDamage(int64_t step, const std::string& reason) {
  std::fprintf(stderr, "athanor: checkpoint %s is damaged: %s\n", CheckpointDirName(step).c_str(), reason.c_str());
}

}  // namespace athanor

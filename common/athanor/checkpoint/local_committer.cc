#include "athanor/checkpoint/local_committer.h"

#include <sys/stat.h>

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/layout.h"

namespace athanor {
namespace {

constexpr size_t kVoteLimit = 4096;

// Nothing on a shared file system tells when a file appears: look again after a while that nobody can cut short.
void Pause(absl::Duration span) {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, absl::ToChronoMilliseconds(span));
}

}  // namespace

LocalCommitter::LocalCommitter(std::string root, int rank, int world_size, absl::Duration patience)
    : root_(std::move(root)), rank_(rank), world_size_(world_size), patience_(patience) {}

std::string LocalCommitter::VotePath(int64_t step, int rank) const {
  return absl::StrFormat("%s/%s/vote-%05d.json", root_, CheckpointDirName(step), rank);
}

absl::StatusOr<std::vector<ShardInfo>> LocalCommitter::CommitShard(int64_t step, const ShardInfo& shard) {
  if (rank_ != 0) {
    const nlohmann::json vote = {{"file", shard.file}, {"bytes", shard.bytes}, {"crc32c", shard.crc32c}};
    RETURN_IF_ERROR(WriteFileAtomically(VotePath(step, rank_), vote.dump()));
    return std::vector<ShardInfo>();
  }
  std::vector<ShardInfo> shards = {shard};
  const absl::Time deadline = absl::Now() + patience_;
  for (int rank = 1; rank < world_size_; ++rank) {
    ASSIGN_OR_RETURN(ShardInfo one, WaitForVote(step, rank, deadline));
    shards.push_back(std::move(one));
  }
  return shards;
}

absl::StatusOr<ShardInfo> LocalCommitter::WaitForVote(int64_t step, int rank, absl::Time deadline) const {
  while (true) {
    const absl::StatusOr<std::string> text = ReadFile(VotePath(step, rank), kVoteLimit);
    const nlohmann::json vote = text.ok() ? ParseJsonText(*text) : nlohmann::json();
    const auto holds = [&](const char* key, nlohmann::json::value_t type) {
      return vote.contains(key) && vote[key].type() == type;
    };
    if (holds("file", nlohmann::json::value_t::string) && holds("bytes", nlohmann::json::value_t::number_unsigned) &&
        holds("crc32c", nlohmann::json::value_t::number_unsigned)) {
      ShardInfo shard{rank, vote["file"].get<std::string>(), vote["bytes"].get<int64_t>(),
                      vote["crc32c"].get<uint32_t>()};
      struct stat info = {};
      const std::string path = absl::StrCat(root_, "/", CheckpointDirName(step), "/", shard.file);
      // A vote that an earlier run left counts only for a shard that is there in full.
      if (IsPlainFileName(shard.file) && stat(path.c_str(), &info) == 0 && info.st_size == shard.bytes) return shard;
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("rank ", rank, " did not finish its shard of step ", step,
                                                      " within ", absl::FormatDuration(patience_)));
    }
    Pause(absl::Milliseconds(5));
  }
}

absl::Status LocalCommitter::CommitManifest(const ManifestSummary& summary) {
  for (int rank = 1; rank < world_size_; ++rank) RemoveFile(VotePath(summary.step, rank));
  return absl::OkStatus();
}

void LocalCommitter::Abandon(int64_t step, const std::string&) {
  RemoveFile(VotePath(step, rank_));
}

void LocalCommitter::ReportDamage(int64_t step, const std::string& reason) {
  std::fprintf(stderr, "athanor: checkpoint %s is damaged: %s\n", CheckpointDirName(step).c_str(), reason.c_str());
}

}  // namespace athanor

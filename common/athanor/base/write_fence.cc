#include "athanor/base/write_fence.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr char kClaimPrefix[] = "generation-";
constexpr int64_t kMostGenerations = 1 << 30;  // a larger number is no claim of ours

std::string ClaimsOf(const std::string& folder) {
  return folder + "/.fence";
}

std::string ClaimName(int64_t generation) {
  return absl::StrFormat("%s%06d", kClaimPrefix, generation);
}

absl::StatusOr<std::vector<int64_t>> ReadClaims(const std::string& claims) {
  std::vector<int64_t> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(claims, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    absl::string_view number = name;
    int64_t generation = 0;
    const bool claim = absl::ConsumePrefix(&number, kClaimPrefix) && absl::SimpleAtoi(number, &generation);
    if (claim && generation < kMostGenerations) found.push_back(generation);
  }
  if (error && error != std::errc::no_such_file_or_directory) return FileError(error.value(), "cannot list", claims);
  return found;
}

std::mutex fence_mutex;
std::shared_ptr<const WriteFence>& Fence() {
  static auto& fence = *new std::shared_ptr<const WriteFence>;
  return fence;
}

}  // namespace

WriteFence::WriteFence(std::string folder, int64_t generation, std::function<void(const absl::Status&)> on_fenced)
    : folder_(std::move(folder)),
      claims_(ClaimsOf(folder_)),
      own_(claims_ + "/" + ClaimName(generation)),
      generation_(generation),
      on_fenced_(std::move(on_fenced)) {}

bool WriteFence::Covers(const std::string& path) const {
  return path.size() > folder_.size() && path.compare(0, folder_.size(), folder_) == 0 && path[folder_.size()] == '/';
}

absl::Status WriteFence::Check() const {
  std::lock_guard lock(mutex_);
  if (claimed_) {
    // Opened rather than looked up: network file systems ask their server then.
    const int file = open(own_.c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
      close(file);
      return absl::OkStatus();
    }
    if (errno != ENOENT && errno != ESTALE) return FileError(errno, "cannot look at", own_);
    // A folder that is gone altogether was taken away, not taken over.
    if (std::error_code error; !std::filesystem::exists(folder_, error))
      return absl::NotFoundError(absl::StrCat(folder_, " is gone: is its file system mounted?"));
  }
  const absl::Status status = Claim();
  claimed_ = status.ok();
  if (absl::IsFailedPrecondition(status) && on_fenced_) on_fenced_(status);
  return status;
}

// Of two that claim at the same time each sees the other's file: the older one leaves.
absl::Status WriteFence::Claim() const {
  RETURN_IF_ERROR(EnsureDir(claims_));
  const int file = open(own_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return FileError(errno, "cannot create", own_);
  const int failed = fsync(file) != 0 ? errno : 0;
  close(file);
  if (failed != 0) return FileError(failed, "cannot sync", own_);
  RETURN_IF_ERROR(SyncDir(claims_));
  ASSIGN_OR_RETURN(const std::vector<int64_t> claims, ReadClaims(claims_));
  const int64_t newest = claims.empty() ? 0 : *std::max_element(claims.begin(), claims.end());
  if (newest > generation_) {
    RemoveFile(own_);
    return absl::FailedPreconditionError(
        absl::StrCat(folder_, " belongs to generation ", newest, "; this is generation ", generation_));
  }
  for (const int64_t older : claims) {
    if (older < generation_) RemoveFile(claims_ + "/" + ClaimName(older));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> NewestClaim(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> claims, ReadClaims(ClaimsOf(folder)));
  return claims.empty() ? 0 : *std::max_element(claims.begin(), claims.end());
}

void SetWriteFence(std::shared_ptr<const WriteFence> fence) {
  std::lock_guard lock(fence_mutex);
  Fence() = std::move(fence);
}

absl::Status CheckWriteFence(const std::string& path) {
  std::shared_ptr<const WriteFence> fence;
  {
    std::lock_guard lock(fence_mutex);
    fence = Fence();
  }
  return fence == nullptr || !fence->Covers(path) ? absl::OkStatus() : fence->Check();
}

}  // namespace athanor

// Durable files. Every error names the path and what the system said: RESOURCE_EXHAUSTED for no space or no
// descriptors, NOT_FOUND, PERMISSION_DENIED, else INTERNAL. Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

// The status of `errno_value` for something attempted on `path`.
absl::Status FileError(int errno_value, const std::string& attempted, const std::string& path);

// Creates the folder and its parents; OK when it is there.
absl::Status EnsureDir(const std::string& path);
absl::Status SyncDir(const std::string& path);
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit);

// A file that appears whole or not at all: bytes go to a nameless file of its folder (where the file system has none,
// to a temporary name beside it); Commit() syncs, renames and syncs the folder. Destruction without Commit() removes
// what was written. A failed sync is never tried again.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();
  absl::Status Append(const void* data, size_t size);
  absl::Status Sync();
  absl::Status Commit();          // Sync() first where it was not called
  absl::Status CommitIfAbsent();  // the same; ALREADY_EXISTS, and nothing is done, when there is such a file
  const std::string& path() const { return path_; }

 private:
  AtomicFile(std::string path, std::string temporary, int fd, bool named)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd), named_(named) {}
  std::string path_, temporary_;
  int fd_ = -1;
  bool named_ = false;
  bool synced_ = false;
};

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);
// What writers of `path` that were killed between naming and renaming have left beside it. Best effort; nobody may be
// writing it.
void RemoveLeftovers(const std::string& path);
void RemoveFile(const std::string& path);  // best effort

}  // namespace athanor

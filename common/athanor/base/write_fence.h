// Keeps a process of an older generation from writing into a folder that a newer one has taken over: it may have been
// frozen, or cut off, and wake when its work was given to others long ago.
//
// A generation claims the folder by a file that carries its number in `<folder>/.fence`, and takes the older claims
// away; a claim that is gone is how an older process finds out. AtomicFile::Commit() and whoever appends ask
// CheckWriteFence() first, so that every file of a process that has a fence is covered.
//
//   SetWriteFence(std::make_shared<WriteFence>(folder, 3, [](const absl::Status& why) { ... }));  // once, at the start
//   RETURN_IF_ERROR(CheckWriteFence(path));                                                       // before each write
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

class WriteFence {
 public:
  // `on_fenced` hears of a newer generation before Check() returns; it may end the process. It may be empty.
  WriteFence(std::string folder, int64_t generation, std::function<void(const absl::Status&)> on_fenced = nullptr);

  // Claims the folder at the first call, durably. FAILED_PRECONDITION: a newer generation has it. Any other error: the
  // folder cannot be looked at now, and nothing should be written. One open() where all is well. Thread-safe.
  absl::Status Check() const;
  // Whether `path` lies in the folder.
  bool Covers(const std::string& path) const;

 private:
  absl::Status Claim() const;

  const std::string folder_, claims_, own_;
  const int64_t generation_;
  const std::function<void(const absl::Status&)> on_fenced_;
  mutable std::mutex mutex_;
  mutable bool claimed_ = false;  // guarded by mutex_
};

// The newest generation that has claimed the folder; 0 when none has.
absl::StatusOr<int64_t> NewestClaim(const std::string& folder);

// The fence of this process from now on; nullptr: none. Thread-safe.
void SetWriteFence(std::shared_ptr<const WriteFence> fence);
// OK where the process has no fence or the fence does not cover `path`; else as Check(). Thread-safe.
absl::Status CheckWriteFence(const std::string& path);

}  // namespace athanor

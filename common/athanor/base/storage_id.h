// Tells a storage that is not mounted from one whose files are gone. A file in the storage's root holds a random id; it
// is made once, and whoever writes there remembers the id beside what it wrote.
//
//   ASSIGN_OR_RETURN(const std::string id, EnsureStorageId("/mnt/checkpoints"));  // before the first file
//   RETURN_IF_ERROR(CheckStorage("/mnt/checkpoints", id));  // before a missing file counts as lost
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

inline constexpr char kStorageIdFile[] = ".athanor-storage";

// NOT_FOUND when the root has no id. DATA_LOSS for a file that is none of ours. Errors of the disk as they are.
absl::StatusOr<std::string> ReadStorageId(const std::string& root);

// The id of `root`; makes the folder and the id when they are missing. Any number of processes at once get one id.
absl::StatusOr<std::string> EnsureStorageId(const std::string& root);

// OK when `root` is the storage `id`; with an empty `id`, when it has any. Else StorageUnavailable(), which names both.
absl::Status CheckStorage(const std::string& root, const std::string& id);

// UNAVAILABLE, marked: the storage cannot be reached now. It says nothing about the files that lie on it.
absl::Status StorageUnavailable(const std::string& message);
bool IsStorageUnavailable(const absl::Status& status);

}  // namespace athanor

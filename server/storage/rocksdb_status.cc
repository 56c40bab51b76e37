#include "server/storage/rocksdb_status.h"

#include "absl/strings/str_cat.h"

namespace athanor {

absl::Status FromRocks(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", status.ToString());
  if (status.IsNoSpace() || text.find("No space left") != std::string::npos) return absl::ResourceExhaustedError(text);
  if (status.IsCorruption()) {
    return absl::DataLossError(
        absl::StrCat(text, ". Restore a backup of the data directory, or salvage with `ldb repair` and review"));
  }
  if (status.IsIOError() && text.find("/LOCK") != std::string::npos) {
    return absl::FailedPreconditionError(absl::StrCat(text, ": another coordinator uses this directory"));
  }
  return absl::InternalError(text);
}

}  // namespace athanor

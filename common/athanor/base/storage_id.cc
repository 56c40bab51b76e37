#include "athanor/base/storage_id.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr char kPayload[] = "athanor.dev/storage-unavailable";
constexpr size_t kIdSize = 32;

std::string PathOf(const std::string& root) {
  return absl::StrCat(root, "/", kStorageIdFile);
}

std::string NewId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

bool IsId(const std::string& text) {
  return text.size() == kIdSize && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Links a finished file to its name, so that nobody ever reads half an id. OK when another process was first.
absl::Status Publish(const std::string& root, const std::string& id) {
  const std::string path = PathOf(root), fresh = absl::StrCat(path, ".", NewId(), ".tmp");
  const int file = open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return FileError(errno, "cannot create", fresh);
  const std::string text = id + "\n";
  const ssize_t wrote = write(file, text.data(), text.size());
  int failed = wrote == static_cast<ssize_t>(text.size()) ? 0 : wrote < 0 ? errno : ENOSPC;
  if (failed == 0 && fsync(file) != 0) failed = errno;
  close(file);
  if (failed == 0 && link(fresh.c_str(), path.c_str()) != 0 && errno != EEXIST) {
    // No hard links here: of several that rename, the last one's id stays, and everybody reads it again.
    failed = rename(fresh.c_str(), path.c_str()) == 0 ? 0 : errno;
  }
  unlink(fresh.c_str());
  if (failed != 0) return FileError(failed, "cannot make", path);
  return SyncDir(root);
}

}  // namespace

absl::StatusOr<std::string> ReadStorageId(const std::string& root) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(PathOf(root), /*limit=*/4096));
  std::string id(absl::StripAsciiWhitespace(text));
  if (!IsId(id)) {
    return absl::DataLossError(
        absl::StrCat(PathOf(root), ": expected ", kIdSize, " hexadecimal digits, found ", text.size(), " bytes"));
  }
  return id;
}

absl::StatusOr<std::string> EnsureStorageId(const std::string& root) {
  absl::StatusOr<std::string> found = ReadStorageId(root);
  if (!absl::IsNotFound(found.status())) return found;
  RETURN_IF_ERROR(EnsureDir(root));
  RETURN_IF_ERROR(Publish(root, NewId()));
  return ReadStorageId(root);
}

absl::Status CheckStorage(const std::string& root, const std::string& id) {
  const absl::StatusOr<std::string> found = ReadStorageId(root);
  if (found.ok() && (id.empty() || *found == id)) return absl::OkStatus();
  const std::string what = found.ok() ? absl::StrCat("it is the storage ", *found, ", expected ", id)
                                      : std::string(found.status().message());
  return StorageUnavailable(absl::StrCat("the checkpoint storage is not at ", root, " (is it mounted?): ", what));
}

absl::Status StorageUnavailable(const std::string& message) {
  absl::Status status = absl::UnavailableError(message);
  status.SetPayload(kPayload, absl::Cord("1"));
  return status;
}

bool IsStorageUnavailable(const absl::Status& status) {
  return status.GetPayload(kPayload).has_value();
}

}  // namespace athanor

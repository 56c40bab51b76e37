#include "athanor/base/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/write_fence.h"

namespace athanor {
namespace {

// The folder of a bare name is the working folder.
std::string FolderOf(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path().string() : ".";
}

}  // namespace

absl::Status FileError(int errno_value, const std::string& attempted, const std::string& path) {
  const std::string text = absl::StrCat(attempted, " ", path, ": ", std::strerror(errno_value));
  switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(text);
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    default:
      return absl::InternalError(text);
  }
}

absl::Status EnsureDir(const std::string& path) {
  std::error_code error;
  if (!path.empty()) std::filesystem::create_directories(path, error);
  return error ? FileError(error.value(), "cannot create the folder", path) : absl::OkStatus();
}

absl::Status SyncDir(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "cannot open the folder", path);
  const int failed = fsync(fd) != 0 ? errno : 0;
  close(fd);
  return failed != 0 ? FileError(failed, "cannot sync the folder", path) : absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "cannot open", path);
  std::string text;
  char buffer[65536];
  ssize_t got = 0;
  while ((got = read(fd, buffer, sizeof buffer)) > 0 && text.size() <= limit)
    text.append(buffer, static_cast<size_t>(got));
  const int failed = got < 0 ? errno : 0;
  close(fd);
  if (failed != 0) return FileError(failed, "cannot read", path);
  if (text.size() > limit) return absl::InvalidArgumentError(absl::StrCat(path, " is longer than ", limit, " bytes"));
  return text;
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  static std::atomic<uint64_t> counter{0};
  std::string temporary = absl::StrCat(path, ".", getpid(), "-", counter.fetch_add(1), ".tmp");
  // Without a name nothing is left when the process is killed; not every file system can do it.
  const int nameless = open(FolderOf(path).c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644);
  if (nameless >= 0) return AtomicFile(path, std::move(temporary), nameless, /*named=*/false);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(errno, "cannot create", temporary);
  return AtomicFile(path, std::move(temporary), fd, /*named=*/true);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      named_(other.named_),
      synced_(other.synced_) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  if (named_) unlink(temporary_.c_str());
}

absl::Status AtomicFile::Append(const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t wrote = write(fd_, at, size);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return FileError(errno, "cannot write", temporary_);
    at += wrote;
    size -= static_cast<size_t>(wrote);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Sync() {
  if (fsync(fd_) != 0) return FileError(errno, "cannot sync", temporary_);
  synced_ = true;
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  if (!synced_) RETURN_IF_ERROR(Sync());
  RETURN_IF_ERROR(CheckWriteFence(path_));
  if (!named_) {
    // A new file gets its name at once; one that is replaced has to be renamed over, and a process that is killed in
    // between leaves the temporary name (RemoveLeftovers).
    const std::string self = absl::StrCat("/proc/self/fd/", fd_);
    const auto name = [&](const std::string& as) {
      return linkat(AT_FDCWD, self.c_str(), AT_FDCWD, as.c_str(), AT_SYMLINK_FOLLOW) == 0;
    };
    if (name(path_)) {
      close(std::exchange(fd_, -1));
      return SyncDir(FolderOf(path_));
    }
    if (errno != EEXIST) return FileError(errno, "cannot name", path_);
    if (!name(temporary_)) return FileError(errno, "cannot name", temporary_);
    named_ = true;
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return FileError(errno, "cannot rename to", path_);
  close(std::exchange(fd_, -1));
  return SyncDir(FolderOf(path_));
}

absl::Status AtomicFile::CommitIfAbsent() {
  if (!synced_) RETURN_IF_ERROR(Sync());
  RETURN_IF_ERROR(CheckWriteFence(path_));
  const std::string self = named_ ? temporary_ : absl::StrCat("/proc/self/fd/", fd_);
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), named_ ? 0 : AT_SYMLINK_FOLLOW) != 0) {
    return errno == EEXIST ? absl::AlreadyExistsError(absl::StrCat(path_, ": is there already"))
                           : FileError(errno, "cannot name", path_);
  }
  if (named_) unlink(temporary_.c_str());
  close(std::exchange(fd_, -1));
  return SyncDir(FolderOf(path_));
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Append(contents.data(), contents.size()));
  return file.Commit();
}

void RemoveLeftovers(const std::string& path) {
  const std::filesystem::path target(path);
  const std::string prefix = target.filename().string() + ".", suffix = ".tmp";
  std::error_code error;
  for (std::filesystem::directory_iterator file(FolderOf(target), error), end; !error && file != end;
       file.increment(error)) {
    const std::string name = file->path().filename().string();
    if (name.size() <= prefix.size() + suffix.size() || name.compare(0, prefix.size(), prefix) != 0 ||
        name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0)
      continue;
    const std::string middle = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    if (middle.find_first_not_of("0123456789-") == std::string::npos) unlink(file->path().c_str());
  }
}

void RemoveFile(const std::string& path) {
  unlink(path.c_str());
}

}  // namespace athanor

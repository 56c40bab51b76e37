#include "worker/agent/checkpoint_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/storage_id.h"

namespace athanor::agent {
namespace {

bool IsCheckpointName(const std::string& name) {
  if (name.size() != 17 || name.compare(0, 5, "step-") != 0) return false;
  return name.find_first_not_of("0123456789", 5) == std::string::npos;
}

struct Closer {
  void operator()(DIR* dir) const { closedir(dir); }
};

// The manifest goes first: without it the rest is no checkpoint any more.
absl::Status Empty(DIR* dir, const std::string& path) {
  const int fd = dirfd(dir);
  if (unlinkat(fd, "manifest.json", 0) != 0 && errno != ENOENT)
    return absl::InternalError(absl::StrCat("cannot remove ", path, "/manifest.json: ", strerror(errno)));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  for (const std::string& name : names) {
    if (unlinkat(fd, name.c_str(), 0) != 0 && errno != ENOENT)
      return absl::InternalError(absl::StrCat("cannot remove ", path, "/", name, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RemoveCheckpointFiles(const std::string& job, const std::string& path, const std::string& storage) {
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash), name = path.substr(slash + 1);
  const bool in_job = !job.empty() && job.find('/') == std::string::npos && parent.size() > job.size() &&
                      parent.compare(parent.size() - job.size() - 1, std::string::npos, "/" + job) == 0;
  if (path.empty() || path[0] != '/' || path.find("/../") != std::string::npos || !in_job || !IsCheckpointName(name)) {
    return absl::InvalidArgumentError(absl::StrCat("refused: ", path, " is not a checkpoint of ", job));
  }
  // In an empty mount point nothing is gone.
  const std::string root = parent.substr(0, parent.size() - job.size() - 1);
  const int parent_fd = open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent_fd < 0)
    return errno == ENOENT ? CheckStorage(root, storage)
                           : absl::InternalError(absl::StrCat("cannot open ", parent, ": ", strerror(errno)));
  const int fd = openat(parent_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  absl::Status status;
  if (fd < 0) {
    status = errno != ENOENT   ? absl::InternalError(absl::StrCat("cannot open ", path, ": ", strerror(errno)))
             : storage.empty() ? absl::OkStatus()
                               : CheckStorage(root, storage);
  } else {
    const std::unique_ptr<DIR, Closer> dir(fdopendir(fd));
    status = Empty(dir.get(), path);
    if (status.ok() && unlinkat(parent_fd, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
      status = absl::InternalError(absl::StrCat("cannot remove ", path, ": ", strerror(errno)));
    }
  }
  close(parent_fd);
  return status;
}

}  // namespace athanor::agent

#include "worker/trainer/task_loader.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

absl::Status CheckLibraryFile(const std::string& path) {
  struct stat info;
  if (path.front() != '/')
    return absl::InvalidArgumentError(absl::StrCat("task.library: found \"", path, "\"; allowed: an absolute path"));
  if (stat(path.c_str(), &info) != 0)
    return absl::NotFoundError(absl::StrCat("task.library: cannot read ", path, ": ", strerror(errno)));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat("task.library: ", path, " is not a file"));
  if ((info.st_mode & S_IWOTH) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("task.library: ", path, " can be written by everyone; chmod o-w it"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Task>> LoadTask(const std::string& name, const std::string& library) {
  if (!library.empty()) {
    RETURN_IF_ERROR(CheckLibraryFile(library));
    if (dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
      const char* reason = dlerror();
      return absl::InvalidArgumentError(
          absl::StrCat("task.library: cannot load ", library, ": ", reason == nullptr ? "no reason" : reason));
    }
    if (const auto refused = RefusedTaskNames(); !refused.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "task.library: ", library, " registers a task name that is taken: ", absl::StrJoin(refused, ", ")));
    }
  }
  return MakeTask(name);
}

}  // namespace athanor

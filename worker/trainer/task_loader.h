// Finds the job's task: built in, or registered by a shared object of the user's.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/task/task.h"

namespace athanor {

// Loads `library` first unless it is empty; it stays loaded. The library finds RegisterTask() in this program, so it
// must not bring its own copy (link it with athanor_task_library()). INVALID_ARGUMENT: not an absolute path, not a
// file, writable by everyone, not loadable (with the loader's reason), or it registers a name that is taken. NOT_FOUND:
// no such library, or no such task (with the known names).
absl::StatusOr<std::unique_ptr<Task>> LoadTask(const std::string& name, const std::string& library);

}  // namespace athanor

#include "athanor/task/task.h"

#include <mutex>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/config/reflection.h"
#include "worker/tasks/builtin_tasks.h"

namespace athanor {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, TaskFactory> factories;  // guarded by mutex
  std::set<std::string> refused;                 // guarded by mutex

  Registry() {
    factories["char_gpt"] = MakeCharGpt;
    factories["digits_mlp"] = MakeDigitsMlp;
    factories["image_resnet"] = MakeImageResNet;
    factories["torchscript"] = MakeTorchScriptTask;
    factories["train_step"] = MakeTrainStepTask;
  }
};

// The built-in tasks are named here rather than registered by static objects: a linker drops those out of a static
// library.
Registry& TheRegistry() {
  static Registry& registry = *new Registry;
  return registry;
}

}  // namespace

bool RegisterTask(const std::string& name, TaskFactory factory) {
  Registry& registry = TheRegistry();
  std::lock_guard lock(registry.mutex);
  const bool added = registry.factories.emplace(name, std::move(factory)).second;
  if (!added) registry.refused.insert(name);
  return added;
}

absl::StatusOr<std::unique_ptr<Task>> MakeTask(const std::string& name) {
  Registry& registry = TheRegistry();
  TaskFactory factory;
  {
    std::lock_guard lock(registry.mutex);
    if (auto found = registry.factories.find(name); found != registry.factories.end()) factory = found->second;
  }
  if (factory == nullptr) {
    const std::vector<std::string> known = TaskNames();
    const std::string near = NearestName(name, known);
    return absl::NotFoundError(absl::StrCat("task.name: no task is called \"", name, "\"",
                                            near.empty() ? "" : absl::StrCat(", did you mean \"", near, "\"?"),
                                            "; known: ", absl::StrJoin(known, ", ")));
  }
  return factory();
}

std::vector<std::string> TaskNames() {
  Registry& registry = TheRegistry();
  std::lock_guard lock(registry.mutex);
  std::vector<std::string> names;
  for (const auto& [name, factory] : registry.factories) names.push_back(name);
  return names;
}

std::vector<std::string> RefusedTaskNames() {
  Registry& registry = TheRegistry();
  std::lock_guard lock(registry.mutex);
  return {registry.refused.begin(), registry.refused.end()};
}

}  // namespace athanor

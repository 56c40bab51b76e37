#include "worker/trainer/check_job.h"

#include <torch/torch.h>

#include <filesystem>
#include <memory>

#include <nlohmann/json.hpp>
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/task/task_options.h"
#include "athanor/torch/status.h"
#include "worker/trainer/task_loader.h"
#include "worker/trainer/trainer_env.h"

namespace athanor {
namespace {

// Only a library may be elsewhere than here: a name that nobody registers is a mistake.
absl::StatusOr<std::unique_ptr<Task>> FindTask(const TrainerSpec& spec) {
  absl::StatusOr<std::unique_ptr<Task>> task = LoadTask(spec.task_name, spec.task_library);
  std::error_code error;
  const bool here = spec.task_library.empty() || std::filesystem::exists(spec.task_library, error);
  if (absl::IsNotFound(task.status()) && here) return absl::InvalidArgumentError(task.status().message());
  return task;
}

}  // namespace

absl::Status CheckJob(const std::string& spec_file) {
  ASSIGN_OR_RETURN(const TrainerSpec spec, ReadTrainerSpec(spec_file));
  const nlohmann::json runner = nlohmann::json::parse(spec.runner, nullptr, /*allow_exceptions=*/false);
  const nlohmann::json options = nlohmann::json::parse(spec.task_options, nullptr, /*allow_exceptions=*/false);
  if (runner.is_discarded() || options.is_discarded())
    return absl::InvalidArgumentError("the spec's runner or task options are not JSON");
  RunnerConfig config;
  RETURN_IF_ERROR(Annotate(ToStatus(CheckRunnerConfig(runner, &config)), "runner"));
  ASSIGN_OR_RETURN(const std::unique_ptr<Task> task, FindTask(spec));
  TaskOptionsProbe probe;
  absl::Status status;
  RETURN_IF_ERROR(RunTorch(
      "task set-up", [&] { status = task->Setup({.options = options, .precision = EffectivePrecision(config)}); }));
  if (TaskOptionsProbe::Stopped(status)) return absl::OkStatus();
  // A file that is here and damaged is damaged on the workers too.
  return absl::IsDataLoss(status) ? absl::InvalidArgumentError(status.message()) : status;
}

}  // namespace athanor

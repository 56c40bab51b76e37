// What a trainer is started with: its environment (contract/rank_environment.h) and the job's spec file, typed and
// checked.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace athanor {

struct TrainerEnv {
  std::string socket;  // TrainerService of this rank's agent
  std::string job;
  int generation = 0;  // from 1
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  std::string spec_file;
  std::string job_dir;  // where its checkpoints go
  std::string host = "127.0.0.1";
  std::vector<int> slots;
  std::string device = "cpu";
  std::string failure_file;  // may be empty: nobody reads it
  int restarts = 0;
};

// INVALID_ARGUMENT names every variable that is missing or wrong. `get` is getenv, or a test's own.
absl::StatusOr<TrainerEnv> ReadTrainerEnv(const std::function<const char*(const char*)>& get);

// The part of the job's spec that its ranks need. Defaults are filled in.
struct TrainerSpec {
  std::string job_name;
  std::string task_name;
  std::string task_library;  // absolute path, or empty
  std::string task_options;  // JSON object
  std::string runner;        // JSON object: RunnerConfig
  int threads_per_rank = 1;
  bool strict_fencing = false;
  absl::Duration join_timeout = absl::Seconds(60);
};

// NOT_FOUND: no such file. DATA_LOSS: not a serialized JobSpec. INVALID_ARGUMENT: no task.
absl::StatusOr<TrainerSpec> ReadTrainerSpec(const std::string& path);

}  // namespace athanor

#include "worker/trainer/trainer_env.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/contract/rank_environment.h"
#include "athanor/v1/job.pb.h"

namespace athanor {
namespace {

class EnvReader {
 public:
  explicit EnvReader(const std::function<const char*(const char*)>& get) : get_(get) {}

  std::string Text(const char* name) {
    const char* value = get_(name);
    if (value == nullptr || *value == '\0') problems_.push_back(absl::StrCat(name, " is not set"));
    return value == nullptr ? "" : value;
  }
  std::string Optional(const char* name, const std::string& fallback) {
    const char* value = get_(name);
    return value == nullptr || *value == '\0' ? fallback : value;
  }
  int Number(const char* name, const std::string& text, int min, int max) {
    int value = min;
    if (!absl::SimpleAtoi(text, &value) || value < min || value > max) {
      if (!text.empty()) problems_.push_back(absl::StrCat(name, " is '", text, "'; allowed: ", min, " to ", max));
      return min;
    }
    return value;
  }
  int Number(const char* name, int min, int max) { return Number(name, Text(name), min, max); }
  void Complain(std::string problem) { problems_.push_back(std::move(problem)); }
  absl::Status Check() const {
    if (problems_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("environment of a trainer: ", absl::StrJoin(problems_, "; "),
                                                   " (athanor-trainer is started by athanor-agent)"));
  }

 private:
  const std::function<const char*(const char*)>& get_;
  std::vector<std::string> problems_;
};

constexpr int kMaxRanks = 4096;
constexpr int kNoLimit = std::numeric_limits<int>::max();

absl::Duration ToAbsl(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

absl::StatusOr<TrainerEnv> ReadTrainerEnv(const std::function<const char*(const char*)>& get) {
  EnvReader reader(get);
  TrainerEnv env;
  env.socket = reader.Text(kEnvSocket);
  env.job = reader.Text(kEnvJob);
  env.generation = reader.Number(kEnvGeneration, 1, kNoLimit);
  env.world_size = reader.Number(kEnvWorldSize, 1, kMaxRanks);
  env.rank = reader.Number(kEnvRank, 0, kMaxRanks - 1);
  env.local_rank = reader.Number(kEnvLocalRank, 0, kMaxRanks - 1);
  env.spec_file = reader.Text(kEnvSpecFile);
  env.job_dir = reader.Text(kEnvJobDir);
  env.host = reader.Optional(kEnvHost, env.host);
  env.device = reader.Optional(kEnvDevice, env.device);
  env.failure_file = reader.Optional(kEnvFailureFile, "");
  env.restarts = reader.Number(kEnvRestarts, reader.Optional(kEnvRestarts, "0"), 0, kNoLimit);
  for (absl::string_view slot : absl::StrSplit(reader.Optional(kEnvSlots, ""), ',', absl::SkipEmpty())) {
    env.slots.push_back(reader.Number(kEnvSlots, std::string(slot), 0, kNoLimit));
  }
  if (env.rank >= env.world_size) {
    reader.Complain(absl::StrCat(kEnvRank, " is ", env.rank, ", but ", kEnvWorldSize, " is ", env.world_size));
  }
  if (env.device != "cpu" && env.device != "cuda") {
    reader.Complain(absl::StrCat(kEnvDevice, " is '", env.device, "'; allowed: cpu, cuda"));
  }
  if (absl::Status status = reader.Check(); !status.ok()) return status;
  return env;
}

absl::StatusOr<TrainerSpec> ReadTrainerSpec(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read the job's spec ", path, ": ", strerror(errno)));
  v1::JobSpec spec;
  if (!spec.ParseFromIstream(&file)) return absl::DataLossError(absl::StrCat(path, " is not a serialized JobSpec"));
  TrainerSpec read;
  read.job_name = spec.name();
  read.task_name = spec.task().name();
  read.task_library = spec.task().library();
  read.task_options = spec.task().options_json().empty() ? "{}" : spec.task().options_json();
  read.runner = spec.runner_json().empty() ? "{}" : spec.runner_json();
  read.strict_fencing = spec.fencing() == "strict";
  if (spec.resources().threads_per_rank() > 0) read.threads_per_rank = spec.resources().threads_per_rank();
  if (const absl::Duration join = ToAbsl(spec.timeouts().join()); join > absl::ZeroDuration()) read.join_timeout = join;
  if (read.task_name.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": task.name is missing"));
  return read;
}

}  // namespace athanor

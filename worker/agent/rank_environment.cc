#include "worker/agent/rank_environment.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/json_text.h"
#include "athanor/contract/rank_environment.h"

namespace athanor::agent {
namespace {

constexpr const char* kPassedOn[] = {"PATH",
                                     "HOME",
                                     "LANG",
                                     "LC_ALL",
                                     "LD_LIBRARY_PATH",
                                     "TMPDIR",
                                     "TZ",
                                     "USER",
                                     "NCCL_DEBUG",
                                     "NCCL_SOCKET_IFNAME",
                                     "GLOO_SOCKET_IFNAME"};

bool IsDeterministic(const std::string& runner_json) {
  const nlohmann::json runner = ParseJsonText(runner_json);
  if (!runner.is_object()) return false;
  const auto value = runner.find("deterministic");
  return value != runner.end() && value->is_boolean() && value->get<bool>();
}

}  // namespace

std::map<std::string, std::string> PassedOn() {
  std::map<std::string, std::string> values;
  for (const char* name : kPassedOn) {
    if (const char* value = std::getenv(name)) values[name] = value;
  }
  return values;
}

std::vector<std::string> RankEnvironment(const v1::LaunchRank& launch, const RankPlace& place,
                                         std::map<std::string, std::string> own) {
  const v1::JobSpec& spec = launch.spec();
  std::map<std::string, std::string> values = std::move(own);
  const std::string threads = absl::StrCat(std::max(1, spec.resources().threads_per_rank()));
  values["OMP_NUM_THREADS"] = values["MKL_NUM_THREADS"] = threads;
  const bool cuda = spec.resources().device() == "cuda";
  // cuBLAS reads it once, at the first CUDA call, and repeats its results only with it.
  if (cuda && IsDeterministic(spec.runner_json())) values[kEnvCublasWorkspace] = kCublasWorkspace;
  for (const auto& [name, value] : spec.env()) values[name] = value;
  const std::string slots = absl::StrJoin(launch.slots(), ",");
  if (cuda) values["CUDA_VISIBLE_DEVICES"] = slots;
  values[kEnvSocket] = place.socket;
  values[kEnvJob] = launch.id().job();
  values[kEnvGeneration] = absl::StrCat(launch.id().generation());
  values[kEnvRank] = absl::StrCat(launch.id().rank());
  values[kEnvWorldSize] = absl::StrCat(launch.world_size());
  values[kEnvLocalRank] = absl::StrCat(launch.local_rank());
  values[kEnvSpecFile] = place.spec_file;
  values[kEnvJobDir] = launch.job_dir();
  values[kEnvHost] = place.host;
  values[kEnvSlots] = slots;
  values[kEnvDevice] = cuda ? "cuda" : "cpu";
  values[kEnvFailureFile] = place.failure_file;
  values[kEnvRestarts] = absl::StrCat(launch.restarts());
  values[kEnvLogFormat] = spec.log_format().empty() ? place.log_format : spec.log_format();
  std::vector<std::string> environment;
  environment.reserve(values.size());
  for (const auto& [name, value] : values) environment.push_back(absl::StrCat(name, "=", value));
  return environment;
}

}  // namespace athanor::agent

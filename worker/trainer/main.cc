// athanor-trainer: one rank of one generation of one job. Started by athanor-agent; common/athanor/contract has what
// they agree on. As the program that has LibTorch it also exports checkpoints, for `athanor checkpoint export`, and
// checks task options, for `athanor job submit --dry-run`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "athanor/base/descriptors.h"
#include "athanor/base/version.h"
#include "athanor/contract/rank_environment.h"
#include "athanor/runner/state/pretrained.h"
#include "worker/trainer/check_job.h"
#include "worker/trainer/exit.h"
#include "worker/trainer/log_line.h"
#include "worker/trainer/train_job.h"
#include "worker/trainer/trainer_env.h"

namespace {

// export CHECKPOINT FILE [DTYPE]
int Export(int argc, char** argv) {
  const absl::Status done = athanor::ExportWeights(argv[2], argv[3], {.dtype = argc > 4 ? argv[4] : ""});
  if (!done.ok()) std::cerr << "error: " << done.message() << "\n";
  return done.ok() ? 0 : athanor::kExitInvalid;
}

// check SPEC_FILE: 0, kExitInvalid where the job cannot work, 1 where that cannot be told here.
int Check(const char* spec_file) {
  const absl::Status checked = athanor::CheckJob(spec_file);
  if (!checked.ok()) std::cerr << checked.message() << "\n";
  return checked.ok() ? 0 : absl::IsInvalidArgument(checked) ? athanor::kExitInvalid : 1;
}

}  // namespace

ATHANOR_OPEN_STANDARD_DESCRIPTORS();

int main(int argc, char** argv) {
  using athanor::EndProcess;
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // a rank may be killed: what it has printed is in its log then
  if ((argc == 4 || argc == 5) && std::strcmp(argv[1], "export") == 0) return Export(argc, argv);
  if (argc == 3 && std::strcmp(argv[1], "check") == 0) return Check(argv[2]);
  if (argc > 1) {
    const bool version = std::strcmp(argv[1], "--version") == 0;
    (version ? std::cout : std::cerr) << (version
                                              ? athanor::Version()
                                              : "athanor-trainer is started by athanor-agent; it takes no arguments")
                                      << "\n";
    return version ? 0 : athanor::kExitInvalid;
  }
  const char* failure_file = std::getenv(athanor::kEnvFailureFile);
  athanor::SetUpExit(failure_file == nullptr ? "" : failure_file);
  if (const char* format = std::getenv(athanor::kEnvLogFormat)) athanor::SetLogFormat(format);
  if (const auto limit = athanor::RaiseDescriptorLimit(/*least=*/0); !limit.ok())
    athanor::LogLine("WARN", "DescriptorLimit", {}, std::string(limit.status().message()));
  const auto env = athanor::ReadTrainerEnv([](const char* name) -> const char* { return std::getenv(name); });
  if (!env.ok()) EndProcess(athanor::kExitInvalid, std::string(env.status().message()));
  athanor::SetLogIdentity(env->job, env->generation, env->rank);
  const auto spec = athanor::ReadTrainerSpec(env->spec_file);
  if (!spec.ok()) EndProcess(athanor::kExitInvalid, std::string(spec.status().message()));
  const athanor::RankEnd end = athanor::TrainJob(*env, *spec);
  EndProcess(end.code, end.detail);
}

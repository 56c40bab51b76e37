// athanor-trainer: one rank of one generation of one job. Started by athanor-agent; common/athanor/contract has what
// they agree on. As the program that has LibTorch it also converts checkpoints, for `athanor checkpoint import` and
// `export`, and checks task options, for `athanor job submit --dry-run`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "athanor/base/descriptors.h"
#include "athanor/base/version.h"
#include "athanor/contract/rank_environment.h"
#include "worker/trainer/check_job.h"
#include "worker/trainer/convert_command.h"
#include "worker/trainer/exit.h"
#include "worker/trainer/log_line.h"
#include "worker/trainer/train_job.h"
#include "worker/trainer/trainer_env.h"

namespace {

// convert FROM TO [OPTION]…
int Convert(int argc, char** argv) {
  const auto command = athanor::ParseConvertCommand({argv + 2, argv + argc});
  const auto done = command.ok() ? athanor::ConvertTensors(command->from, command->to, command->options)
                                 : absl::StatusOr<athanor::ConvertReport>(command.status());
  if (done.ok()) std::cout << athanor::ToJson(*done) << "\n";
  if (!done.ok()) std::cerr << "error: " << done.status().message() << "\n";
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
  if (argc > 1 && std::strcmp(argv[1], "convert") == 0) return Convert(argc, argv);
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

// The environment that an agent starts a trainer with. Values of the job's `env` are added as they are.
#pragma once

namespace athanor {

inline constexpr char kEnvSocket[] = "ATHANOR_AGENT_SOCKET";  // Unix socket path of TrainerService
inline constexpr char kEnvJob[] = "ATHANOR_JOB";
inline constexpr char kEnvGeneration[] = "ATHANOR_GENERATION";
inline constexpr char kEnvRank[] = "RANK";
inline constexpr char kEnvWorldSize[] = "WORLD_SIZE";
inline constexpr char kEnvLocalRank[] = "LOCAL_RANK";
inline constexpr char kEnvSpecFile[] = "ATHANOR_SPEC_FILE";  // serialized athanor.v1.JobSpec without env, mode 0600
inline constexpr char kEnvJobDir[] = "ATHANOR_JOB_DIR";      // <checkpoint root>/<job id>
inline constexpr char kEnvHost[] = "ATHANOR_HOST";           // address at which other ranks reach this machine
inline constexpr char kEnvSlots[] = "ATHANOR_SLOTS";         // "0,1"
inline constexpr char kEnvDevice[] = "ATHANOR_DEVICE";       // "cpu" or "cuda"
inline constexpr char kEnvFailureFile[] = "ATHANOR_FAILURE_FILE";
inline constexpr char kEnvRestarts[] = "ATHANOR_RESTARTS";
inline constexpr char kEnvLogFormat[] = "ATHANOR_LOG_FORMAT";  // of what trainer and library log: text or json

// For jobs with `deterministic` on CUDA, unless the job's `env` says otherwise.
inline constexpr char kEnvCublasWorkspace[] = "CUBLAS_WORKSPACE_CONFIG";
inline constexpr char kCublasWorkspace[] = ":4096:8";

}  // namespace athanor

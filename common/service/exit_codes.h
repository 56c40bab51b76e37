// Exit codes of a trainer and the environment it is started with: the contract between agent and trainer.
#pragma once

namespace athanor {

// A trainer also writes {"kind": "...", "detail": "..."} to $ATHANOR_FAILURE_FILE before it exits with any code but 0.
enum TrainerExit : int {
  kExitFinished = 0,
  kExitUserCode = 10,
  kExitOutOfMemory = 11,
  kExitData = 12,
  kExitNanLoss = 13,
  kExitPeerLost = 14,  // a collective failed: another rank is the cause
  kExitHang = 15,
  kExitInvalid = 16,    // the configuration cannot work; never restarted
  kExitPreempted = 17,  // left as asked, after a save at a step boundary
  kExitOurBug = 18,
  kExitStale = 19,         // told that its generation is over
  kExitDoNotRestart = 20,  // user code asks for the end: never restarted
  kExitLaunchFailed = 21,  // could not join
  kExitStorage = 22,       // the checkpoint storage cannot be reached
};

// Set by the agent. Values of the job's `env` are added as they are.
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
inline constexpr char kEnvLogFormat[] =
    "ATHANOR_LOG_FORMAT";  // of the lines that trainer and library log: text or json

// For jobs with `deterministic` on CUDA, unless the job's `env` says otherwise.
inline constexpr char kEnvCublasWorkspace[] = "CUBLAS_WORKSPACE_CONFIG";
inline constexpr char kCublasWorkspace[] = ":4096:8";

// Protocol of AgentService. An agent and a coordinator work together when theirs are equal.
inline constexpr int kProtocolVersion = 1;

}  // namespace athanor

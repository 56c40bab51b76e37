#include "worker/trainer/train_job.h"

#include <torch/torch.h>

#include <filesystem>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/storage_id.h"
#include "athanor/base/write_fence.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/runner/step/deterministic.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/runner/watch/supervisor.h"
#include "athanor/torch/host_memory.h"
#include "athanor/torch/status.h"
#include "worker/trainer/control_hooks.h"
#include "worker/trainer/coordinator_committer.h"
#include "worker/trainer/log_line.h"
#include "worker/trainer/rendezvous_client.h"
#include "worker/trainer/task_loader.h"

namespace athanor {
namespace {

constexpr absl::Duration kFinishTimeout = absl::Minutes(10);
constexpr absl::Duration kLastReportTimeout = absl::Seconds(1);
// Collectives time out first, and the coordinator's own rule long before: this one is for when nobody else is left to
// see a hang.
constexpr absl::Duration kHangMargin = absl::Seconds(60);

absl::Status Fail(TrainerExit code, const absl::Status& status, RankEnd* end) {
  *end = {.code = code, .detail = std::string(status.message())};
  return status;
}

// The id of the storage under `root`, made when nothing was ever written there. Before this rank writes anything: where
// checkpoints are expected, and neither they nor their storage are there, the folder is an empty mount point. A storage
// without an id is one of before ids were kept, or one that nothing can be written to now: "".
absl::StatusOr<std::string> FindStorage(const std::string& root, const std::vector<RendezvousPlan::Resume>& resume) {
  std::error_code ignored;
  if (!resume.empty() && !std::filesystem::exists(resume.front().path, ignored)) {
    const std::filesystem::path folder = std::filesystem::path(resume.front().path).parent_path();
    const bool older = resume.front().storage.empty() && std::filesystem::exists(folder, ignored);
    if (!older) RETURN_IF_ERROR(CheckStorage(root, resume.front().storage));
  }
  const absl::StatusOr<std::string> id = EnsureStorageId(root);
  if (!id.ok()) LogLine("WARN", "StorageWithoutId", {{"root", root}}, std::string(id.status().message()));
  return id.value_or("");
}

// LibTorch's warnings as lines of our log.
class WarningsToLog : public c10::WarningHandler {
  void process(const c10::Warning& warning) override {
    LogLine("WARN", "Warning", {{"function", warning.source_location().function}}, warning.msg());
  }
};

// Everything that belongs to one rank, in the order in which it is made; destroyed in reverse.
class RankRun {
 public:
  RankRun(const TrainerEnv& env, const TrainerSpec& spec) : env_(env), spec_(spec) {}

  absl::Status Run(RankEnd* end) {
    if (absl::Status status = Configure(); !status.ok()) return Fail(kExitInvalid, status, end);
    if (absl::Status status = Connect(); !status.ok()) return Fail(kExitLaunchFailed, status, end);
    RendezvousClient rendezvous(link_.get(), env_, absl::Now() + spec_.join_timeout);
    if (absl::Status status = rendezvous.Start(); !status.ok()) return Fail(kExitLaunchFailed, status, end);
    // Reading data and making the model overlap with waiting for the other ranks. A rank that cannot train says so at
    // once.
    if (absl::Status status = SetUpTask(); !status.ok()) EndProcess(ExitCodeOf(status), std::string(status.message()));
    if (absl::Status status = Join(&rendezvous); !status.ok()) {
      const bool stale = absl::IsFailedPrecondition(status);
      const bool peer = FailureKindOf(status) == FailureKind::kPeerLost;
      return Fail(stale ? kExitStale : peer ? kExitPeerLost : kExitLaunchFailed, status, end);
    }
    absl::StatusOr<RunResult> result = Train();
    if (!result.ok()) return Fail(ExitCodeOf(result.status()), result.status(), end);
    for (const std::string& note : result->notes) LogLine("WARN", "Note", {}, note);
    return result->outcome == RunOutcome::kPreempted ? Leave(*result, end) : ReportFinished(*result, end);
  }

 private:
  absl::Status Configure() {
    static WarningsToLog& warnings = *new WarningsToLog;
    c10::WarningUtils::set_warning_handler(&warnings);
    const nlohmann::json runner = nlohmann::json::parse(spec_.runner, nullptr, /*allow_exceptions=*/false);
    options_ = nlohmann::json::parse(spec_.task_options, nullptr, /*allow_exceptions=*/false);
    if (runner.is_discarded() || options_.is_discarded())
      return absl::InvalidArgumentError("the spec's runner or task options are not JSON");
    RETURN_IF_ERROR(Annotate(ToStatus(CheckRunnerConfig(runner, &config_)), "runner"));
    torch::set_num_threads(static_cast<int>(config_.threads.value_or(spec_.threads_per_rank)));
    torch::set_num_interop_threads(1);
    if (env_.device == "cuda") {
      // Before the first CUDA call.
      if (config_.deterministic) RETURN_IF_ERROR(UseDeterministicAlgorithms(torch::kCUDA));
      if (!torch::cuda::is_available())
        return absl::InvalidArgumentError("the job wants CUDA; this machine or this build has none");
      device_ = torch::Device(torch::kCUDA, 0);  // the agent shows a rank its own devices only
    }
    if (device_.is_cpu()) KeepHostMemory();  // before the model is made: its memory counts too
    ASSIGN_OR_RETURN(supervisor_, Supervisor::Install());
    return absl::OkStatus();
  }

  absl::Status Connect() {
    ASSIGN_OR_RETURN(link_, AgentLink::Open(env_.socket, {env_.job, env_.generation, env_.rank}));
    auto stale = [](const std::string& reason) { EndProcess(kExitStale, reason); };
    ControlOptions control{.ends_with_lease = spec_.strict_fencing, .on_orphaned = stale};
    control.signalled = [this] { return supervisor_->StopRequested(); };
    hooks_ = std::make_unique<ControlHooks>(link_.get(), std::move(control));
    hooks_->EnterPhase(RunnerPhase::kLoading);
    fence_ = std::make_shared<WriteFence>(env_.job_dir, env_.generation, [](const absl::Status& why) {
      EndProcess(kExitStale, std::string(why.message()));
    });
    SetWriteFence(fence_);
    return absl::OkStatus();
  }

  // Without a claim nothing is written; training is not held up by a disk that is full.
  void ClaimFolder() {
    if (const absl::Status claimed = fence_->Check(); !claimed.ok())
      LogLine("WARN", "FolderNotClaimed", {}, std::string(claimed.message()));
  }

  absl::Status SetUpTask() {
    absl::StatusOr<std::unique_ptr<Task>> task = LoadTask(spec_.task_name, spec_.task_library);
    if (!task.ok()) return WithFailureKind(task.status(), FailureKind::kInvalid);
    task_ = *std::move(task);
    SeedGenerators(config_.seed.has_value() ? static_cast<uint64_t>(*config_.seed) : std::random_device()());
    absl::Status status;
    RETURN_IF_ERROR(RunTorch("task set-up", [&] {
      status = task_->Setup({.rank = env_.rank,
                             .world_size = env_.world_size,
                             .device = device_,
                             .options = options_,
                             .precision = EffectivePrecision(config_)});
    }));
    return status;
  }

  absl::Status Join(RendezvousClient* rendezvous) {
    hooks_->EnterPhase(RunnerPhase::kJoining);
    ASSIGN_OR_RETURN(member_, rendezvous->Finish(device_, config_.comm));
    LogLine("INFO", "Joined",
            {{"world", std::to_string(env_.world_size)},
             {"resume_candidates", std::to_string(member_.plan.resume.size())},
             {"restarts", std::to_string(member_.plan.restarts)}});
    return absl::OkStatus();
  }

  absl::StatusOr<RunResult> Train() {
    TorchRunnerOptions options;
    ASSIGN_OR_RETURN(const ParallelTopology topology,
                     ParallelTopology::Create(env_.world_size, env_.rank, env_.local_rank));
    ASSIGN_OR_RETURN(options.members, Membership::Create(topology, member_.group.get()));
    options.hooks = hooks_.get();
    options.storage_root = std::filesystem::path(env_.job_dir).parent_path().string();
    ASSIGN_OR_RETURN(options.storage, FindStorage(options.storage_root, member_.plan.resume));
    ClaimFolder();  // not in the empty mount point of a storage that is away
    committer_ = std::make_unique<CoordinatorCommitter>(
        link_.get(), CommitterOptions{.on_stale = [](const std::string& reason) { EndProcess(kExitStale, reason); },
                                      .storage = options.storage});
    options.committer = committer_.get();
    options.checkpoint_root = env_.job_dir;
    config_.log = config_.console = false;  // a rank's output is its log
    hooks_->EnterPhase(RunnerPhase::kLoading);
    ASSIGN_OR_RETURN(options.workspace, JobWorkspace());
    for (const RendezvousPlan::Resume& point : member_.plan.resume) {
      options.resume_candidates.push_back(
          {.step = point.step, .path = point.path, .weights_only = point.weights_only, .storage = point.storage});
    }
    options.hang_timeout = absl::Seconds(config_.comm.train_timeout_seconds) + kHangMargin;
    options.on_hang = [](const std::string& what) { EndProcess(kExitHang, what); };
    options.commit_patience = AgentLink::kAwayLimit;
    RETURN_IF_ERROR(RunTorch("making the model", [&] {
      options.model = task_->Model();
      options.datasets = task_->Datasets();
    }));
    options.forward = [this](const Batch& batch) { return task_->Forward(batch); };
    options.metrics = [this](std::shared_ptr<MeterSync> sync) { return task_->Metrics(std::move(sync)); };
    options.device = device_;
    c10::OptionalDeviceGuard guard;
    if (device_.is_cuda()) guard.reset_device(device_);
    ASSIGN_OR_RETURN(runner_, TorchRunner::Create(config_, std::move(options)));
    return runner_->Train();
  }

  // The job's folder holds what a workspace would: results, events, heartbeats beside the checkpoints.
  absl::StatusOr<Workspace> JobWorkspace() const {
    ASSIGN_OR_RETURN(Workspace workspace, ResolveWorkspace(config_, absl::Now(), /*code_folder=*/""));
    workspace.dir = workspace.checkpoint_dir = env_.job_dir;
    workspace.id = workspace.name = env_.job;
    return workspace;
  }

  absl::Status Leave(const RunResult& result, RankEnd* end) {
    const int signal = supervisor_->signal();
    std::string reason = hooks_->stop_reason();
    if (reason.empty()) reason = signal != 0 ? absl::StrCat("signal ", signal) : "another rank was asked to leave";
    link_->Report(hooks_->latest(), ToString(RunnerPhase::kFinishing), absl::Now() + kLastReportTimeout).IgnoreError();
    *end = {.code = kExitPreempted, .detail = absl::StrCat("left after step ", result.step, ": ", reason)};
    return absl::OkStatus();
  }

  absl::Status ReportFinished(const RunResult& result, RankEnd* end) {
    ProgressReport last = hooks_->latest();
    last.metrics.insert(result.metrics.begin(), result.metrics.end());
    const absl::Status status = link_->Finish(last, ToString(RunnerPhase::kFinishing), absl::Now() + kFinishTimeout);
    if (!status.ok()) return Fail(kExitStale, status, end);
    LogLine("INFO", "Finished", {{"step", std::to_string(result.step)}});
    return status;
  }

  const TrainerEnv& env_;
  const TrainerSpec& spec_;
  RunnerConfig config_;
  nlohmann::json options_;
  torch::Device device_ = torch::kCPU;
  std::unique_ptr<Supervisor> supervisor_;
  std::unique_ptr<AgentLink> link_;
  std::unique_ptr<ControlHooks> hooks_;
  std::shared_ptr<const WriteFence> fence_;
  std::unique_ptr<CoordinatorCommitter> committer_;
  std::unique_ptr<Task> task_;
  JoinedRanks member_;
  std::unique_ptr<TorchRunner> runner_;
};

}  // namespace

RankEnd TrainJob(const TrainerEnv& env, const TrainerSpec& spec) {
  // Kept until the process ends: taking it apart could wait for threads that hang, and the end is at hand.
  RankRun& run = *new RankRun(env, spec);
  RankEnd end;
  run.Run(&end).IgnoreError();  // `end` tells
  return end;
}

}  // namespace athanor

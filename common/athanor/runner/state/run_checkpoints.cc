#include "athanor/runner/state/run_checkpoints.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/storage_id.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/store/checkpoint_store.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/parallel/agree_on_status.h"
#include "athanor/parallel/patience.h"
#include "athanor/runner/watch/telemetry.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr absl::Duration kBestPatience = absl::Minutes(1);

// Adds the time until its end.
class Stall {
 public:
  explicit Stall(double* seconds) : seconds_(seconds) {}
  ~Stall() { *seconds_ += clock_.Lap(); }

 private:
  double* const seconds_;
  Telemetry::Clock clock_;
};

// The step may be saved again, over its files: the damaged ones get names that nobody writes.
absl::Status KeepEvidence(const std::string& path) {
  const std::filesystem::path from(path);
  const std::shared_ptr<CheckpointStore> store = StoreAt(from.parent_path().string());
  const std::string folder = from.filename().string();
  ASSIGN_OR_RETURN(const std::vector<std::string> names, store->List(folder));
  for (const std::string& name : names) {
    if (absl::EndsWith(name, "/")) continue;
    const absl::Status kept = store->Copy(absl::StrCat(folder, "/", name), absl::StrCat("damaged/", folder, "/", name));
    if (!kept.ok()) return Annotate(kept, absl::StrCat("cannot keep ", path, " as evidence"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunnerConfig> ReadRunnerConfig(const std::string& path) {
  ASSIGN_OR_RETURN(const ResumeCandidate candidate, CandidateAt(path));
  ASSIGN_OR_RETURN(const nlohmann::json meta, ReadCheckpointMeta(candidate));
  const auto found = meta.is_object() ? meta.find("config") : meta.end();
  if (found == meta.end()) {
    return absl::DataLossError(
        absl::StrCat(candidate.path, ": holds no configuration; take it as weights (FromPretrained)"));
  }
  RunnerConfig config;
  const absl::Status read = ToStatus(CheckRunnerConfig(*found, &config));
  if (!read.ok()) return absl::DataLossError(absl::StrCat(candidate.path, ": its configuration: ", read.message()));
  return config;
}

RunCheckpoints::RunCheckpoints(const RunnerConfig& config, RunCheckpointsOptions options)
    : config_(config), options_(std::move(options)) {
  rules_ = {.by_epoch = !config.steps.has_value(),
            .interval = CheckpointInterval(config),
            .load_only = config.checkpoint.load_only,
            .model_only = config.checkpoint.last_save_model_only,
            .enabled = options_.committer != nullptr,
            .immutable = options_.committer != nullptr && options_.committer->OwnsRetention()};
}

absl::StatusOr<std::unique_ptr<RunCheckpoints>> RunCheckpoints::Create(const RunnerConfig& config,
                                                                       RunCheckpointsOptions options) {
  std::unique_ptr<RunCheckpoints> checkpoints(new RunCheckpoints(config, std::move(options)));
  const Membership members = checkpoints->options_.members;
  RETURN_IF_ERROR(checkpoints->Reseat(members));
  return checkpoints;
}

absl::Status RunCheckpoints::Reseat(const Membership& members) {
  const bool same = members.rank() == options_.members.rank() && members.world_size() == options_.members.world_size();
  if (manager_ != nullptr && !same) RETURN_IF_ERROR(DrainSaves());
  options_.members = members;
  if (options_.committer == nullptr || (manager_ != nullptr && same)) return absl::OkStatus();
  CheckpointManagerOptions manager;
  manager.root = options_.root;
  manager.rank = options_.members.rank();
  manager.world_size = options_.members.world_size();
  manager.async = AsyncCheckpoints(config_.checkpoint);
  manager.load_only = config_.checkpoint.load_only;
  manager.keep_latest_k = static_cast<int>(config_.checkpoint.keep_latest_k);
  manager.storage_root = options_.storage_root;
  manager.storage = options_.storage;
  manager.on_bytes = options_.on_bytes;
  ASSIGN_OR_RETURN(manager_, FileCheckpointManager::Create(manager, options_.committer));
  return absl::OkStatus();
}

void RunCheckpoints::Note(const std::string& text) {
  notes_.push_back(text);
  if (options_.note != nullptr) options_.note(text);
}

absl::StatusOr<bool> RunCheckpoints::AllRanks(bool mine) {
  if (options_.members.group() == nullptr) return mine;
  ASSIGN_OR_RETURN(const Agreement agreement, options_.members.group()->AllAgree({mine ? 1 : 0}));
  return agreement.min[0] == 1;
}

absl::StatusOr<RestoredState> RunCheckpoints::ReadChecked(const ResumeCandidate& candidate) const {
  ASSIGN_OR_RETURN(RestoredState restored,
                   ReadCheckpoint(candidate, options_.members.rank(), options_.members.world_size(), options_.on_bytes,
                                  {}, options_.parts == nullptr ? PartsWanted() : options_.parts()));
  if (candidate.weights_only) return restored;
  const auto config = restored.state.meta.find("config");
  if (!restored.state.meta.is_object() || config == restored.state.meta.end()) {
    return absl::DataLossError("no configuration in the checkpoint");
  }
  const std::vector<std::string> differences = ResumeDifferences(*config, config_);
  if (!differences.empty()) {
    return WithFailureKind(
        absl::InvalidArgumentError(absl::StrCat("the configuration has changed in ways that forbid a resume: ",
                                                absl::StrJoin(differences, "; "))),
        FailureKind::kInvalid);
  }
  return restored;
}

absl::StatusOr<std::optional<RestoredRun>> RunCheckpoints::Restore() {
  const int64_t count = static_cast<int64_t>(options_.candidates.size());
  if (options_.members.group() != nullptr) {
    ASSIGN_OR_RETURN(const Agreement agreement,
                     options_.members.group()->AllAgree({count, count == 0 ? -1 : options_.candidates[0].step}));
    if (agreement.min != agreement.max)
      return absl::InternalError("restore: the ranks were given different candidates");
  }
  int64_t passed_over = 0;
  for (const ResumeCandidate& candidate : options_.candidates) {
    if (options_.passed_over != nullptr) {
      ASSIGN_OR_RETURN(const bool passed, AllRanks(options_.passed_over(candidate)));
      passed_over += passed ? 1 : 0;
      if (passed) continue;
    }
    absl::StatusOr<RestoredState> restored = ReadChecked(candidate);
    const absl::Status agreed = AgreeToRead(restored, candidate);
    if (absl::IsDataLoss(agreed)) continue;
    RETURN_IF_ERROR(agreed);
    // One that lies elsewhere is saved here anew when its step is to be kept.
    ASSIGN_OR_RETURN(const bool own, AllRanks(IsOwn(candidate)));
    if (!candidate.weights_only && own) last_step_ = candidate.step;
    return RestoredRun{*std::move(restored), candidate};
  }
  if (count == passed_over) return std::nullopt;
  return WithFailureKind(absl::DataLossError(absl::StrCat("restore: none of ", count,
                                                          " checkpoints is whole: ", absl::StrJoin(notes_, "; "))),
                         FailureKind::kData);
}

// OK when every rank has read it, DATA_LOSS (and it is reported) when it is damaged for one. What else a rank found
// ends the restore on all ranks: they must not part ways, and what is out of reach must not count as damaged.
absl::Status RunCheckpoints::AgreeToRead(const absl::StatusOr<RestoredState>& restored,
                                         const ResumeCandidate& candidate) {
  const bool away = IsStorageUnavailable(restored.status());
  // What does not fit, or does not fit into memory, is no damage either.
  const bool refused = absl::IsInvalidArgument(restored.status()) || absl::IsResourceExhausted(restored.status());
  Agreement worst{.max = {away ? 1 : 0, refused ? 1 : 0, restored.ok() ? 0 : 1}};
  if (options_.members.group() != nullptr) {
    // Ranks read at different speeds: the limit is that of training, not of joining.
    const Patience patience(options_.members, absl::Seconds(config_.comm.train_timeout_seconds));
    absl::StatusOr<Agreement> agreed = options_.members.group()->AllAgree(worst.max);
    RETURN_IF_ERROR(agreed.status());
    worst = *std::move(agreed);
  }
  const std::string from = absl::StrCat("resume from ", candidate.path);
  if (worst.max[0] == 1) {
    return away ? Annotate(restored.status(), from)
                : StorageUnavailable(absl::StrCat(from, ": another rank cannot reach the storage"));
  }
  if (worst.max[1] == 1) {
    return refused ? Annotate(restored.status(), from)
                   : absl::InvalidArgumentError(absl::StrCat(from, ": refused by another rank"));
  }
  if (worst.max[2] == 0) return absl::OkStatus();
  if (options_.members.rank() == 0) {
    if (const absl::Status kept = KeepEvidence(candidate.path); !kept.ok()) Note(std::string(kept.message()));
  }
  if (restored.ok()) {
    Note(absl::StrCat("checkpoint of step ", candidate.step, " is damaged for another rank"));
    return absl::DataLossError("damaged for another rank");
  }
  if (options_.committer != nullptr)
    options_.committer->ReportDamage(candidate.step, std::string(restored.status().message()));
  Note(absl::StrCat("checkpoint of step ", candidate.step, " is damaged: ", restored.status().message()));
  return absl::DataLossError(restored.status().message());
}

bool RunCheckpoints::Due(int64_t step, int64_t epoch, bool epoch_ended) const {
  return IsDue(rules_, epoch, step, epoch_ended, last_step_);
}

SaveDecision RunCheckpoints::Decide(const SaveArguments& arguments, SaveSituation situation) const {
  situation.saved_step = last_step_;
  situation.saved_model_only = last_is_model_only_;
  return DecideSave(rules_, arguments, situation);
}

absl::Status RunCheckpoints::Save(const SaveDecision& decision,
                                  const std::function<absl::StatusOr<TrainingState>()>& capture,
                                  const SaveRequest& request) {
  if (!decision.save()) return absl::OkStatus();
  const Stall stall(&stall_seconds_);
  RETURN_IF_ERROR(FailOnError());
  if (decision.action == SaveDecision::Action::kName) {
    ASSIGN_OR_RETURN(const bool named, NamedAgain(request));
    if (named) return absl::OkStatus();
  }
  if (decision.room != SaveDecision::Room::kWait) {
    // The end of a write may be worth the wait, but not a commit that waits for a coordinator that is away.
    const bool soon = decision.room == SaveDecision::Room::kSoon;
    const bool room = manager_->WaitForRoom(soon ? kBestPatience : absl::ZeroDuration()).ok();
    ASSIGN_OR_RETURN(const bool all_have_room, AllRanks(room));
    if (!all_have_room) {
      ++skipped_;
      return absl::OkStatus();
    }
  }
  return SaveAnew(capture, request, decision.model_only);
}

// False: that save was given up.
absl::StatusOr<bool> RunCheckpoints::NamedAgain(const SaveRequest& request) {
  const absl::Status drained = DrainSaves();
  if (config_.checkpoint.fail_on_error) RETURN_IF_ERROR(drained);
  const absl::Status named = manager_->Point(request.step, request.aliases);
  const bool there = !absl::IsNotFound(named);
  if (there && !named.ok())
    Note(absl::StrCat("checkpoint of step ", request.step, " is saved, but not named: ", named.message()));
  return AllRanks(there);
}

absl::Status RunCheckpoints::SaveAnew(const std::function<absl::StatusOr<TrainingState>()>& capture,
                                      const SaveRequest& request, bool model_only) {
  SaveRequest resolved = request;
  resolved.must_wait = true;  // agreed: there is room
  const absl::StatusOr<TrainingState> state = capture();
  RETURN_IF_ERROR(AgreeOnStatus(options_.members, state.status()));  // before any rank waits for the others' votes
  RETURN_IF_ERROR(AgreeOnStatus(options_.members, manager_->Save(*state, resolved)));
  last_step_ = request.step;
  last_is_model_only_ = model_only;
  return absl::OkStatus();
}

bool RunCheckpoints::CanSaveBeforeLastEvaluation() const {
  return athanor::CanSaveBeforeLastEvaluation(rules_);
}

void RunCheckpoints::ReportEvaluation(const SaveRequest& request) {
  if (manager_ != nullptr && Saved(request.step)) manager_->ReportEvaluation(request);
}

bool RunCheckpoints::IsOwn(const ResumeCandidate& candidate) const {
  std::error_code error;
  return std::filesystem::equivalent(candidate.path,
                                     absl::StrCat(options_.root, "/", CheckpointDirName(candidate.step)), error);
}

absl::Status RunCheckpoints::FailOnError() {
  if (!config_.checkpoint.fail_on_error) return absl::OkStatus();
  const CheckpointStats stats = manager_->stats();
  ASSIGN_OR_RETURN(const bool fine, AllRanks(stats.failed == 0));
  if (fine) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("checkpoint.fail_on_error: ", stats.failed == 0 ? "another rank could not save" : stats.last_error));
}

absl::Status RunCheckpoints::Drain() {
  if (manager_ == nullptr) return absl::OkStatus();
  const Stall stall(&stall_seconds_);
  return DrainSaves();
}

absl::Status RunCheckpoints::DrainSaves() {
  const std::optional<double> limit = config_.checkpoint.wait_timeout;
  const absl::Status written = manager_->Wait(limit.has_value() ? absl::Seconds(*limit) : absl::InfiniteDuration());
  // Not alone: the other ranks must know before they go on.
  if (config_.checkpoint.fail_on_error) RETURN_IF_ERROR(FailOnError());
  return written;
}

CheckpointStats RunCheckpoints::stats() const {
  CheckpointStats stats = manager_ == nullptr ? CheckpointStats{} : manager_->stats();
  stats.skipped += skipped_;
  stats.stall_seconds = stall_seconds_;
  return stats;
}

}  // namespace athanor

#include "server/rpc/request_validation.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/config/job_rules.h"
#include "athanor/contract/job_limits.h"
#include "common/service/channel.h"
#include "server/convert/proto_convert.h"
#include "server/core/job_spec.h"

namespace athanor {
namespace {

constexpr size_t kMaxEnvBytesTogether = 1024 * 1024;  // more than that no process can be started with
constexpr core::Step kMaxStep = 999'999'999'999;      // of twelve digits: the name of a checkpoint
const int64_t kMaxSeconds = absl::ToInt64Seconds(kMaxJobDuration);

template <typename... Parts>
absl::Status Bad(const std::string& field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", parts...));
}

absl::Status CheckRange(const std::string& field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Bad(field, value, "; allowed: ", low, " to ", high);
}

// By the table of job files. 0 may stand for what is absent.
absl::Status CheckField(const std::string& path, int64_t value, bool may_be_absent = false) {
  if (value == 0 && may_be_absent) return absl::OkStatus();
  const JobField& field = JobFieldAt(path);
  return CheckRange(path, value, may_be_absent ? 0 : field.low(), field.high());
}

absl::Status CheckChoice(const std::string& path, const std::string& text) {
  const JobField& field = JobFieldAt(path);
  if (text.empty() || IsChoice(field, text)) return absl::OkStatus();
  return Bad(path, Show(text), "; allowed: ", AllowedChoices(field));
}

absl::Status CheckDuration(const std::string& field, const google::protobuf::Duration& duration) {
  const bool negative = duration.seconds() < 0 || duration.nanos() < 0;
  if (!negative && duration.seconds() <= kMaxSeconds && duration.nanos() < 1000000000) return absl::OkStatus();
  return Bad(field, duration.seconds(), " s; allowed: 0 to ", kMaxSeconds, " s");
}

bool Printable(const std::string& text) {
  for (const unsigned char c : text) {
    if (c < 0x20 || c == 0x7f) return false;
  }
  return true;
}

absl::Status CheckMap(const std::string& field, const google::protobuf::Map<std::string, std::string>& map,
                      size_t value_limit) {
  if (map.size() > kMaxMapEntries) return Bad(field, map.size(), " entries; allowed: ", kMaxMapEntries);
  for (const auto& [key, value] : map) {
    if (key.empty() || key.size() > kMaxKeyBytes || !Printable(key))
      return Bad(field, "key ", Show(key), "; allowed: 1 to 128 printable bytes");
    if (value.size() > value_limit)
      return Bad(absl::StrCat(field, ".", key), value.size(), " bytes; allowed: ", value_limit);
  }
  return absl::OkStatus();
}

absl::Status CheckEnv(const google::protobuf::Map<std::string, std::string>& env) {
  RETURN_IF_ERROR(CheckMap("env", env, kMaxEnvBytes));
  size_t together = 0;
  for (const auto& [name, value] : env) together += name.size() + value.size();
  if (together > kMaxEnvBytesTogether) return Bad("env", together, " bytes together; allowed: ", kMaxEnvBytesTogether);
  for (const auto& [name, value] : env) {
    const bool digit_first = name[0] >= '0' && name[0] <= '9';
    for (const char c : name) {
      if (digit_first || !(std::isalnum(static_cast<unsigned char>(c)) || c == '_')) {
        return Bad("env", "name ", Show(name), "; allowed: letters, digits and _, not starting with a digit");
      }
    }
    if (value.find('\0') != std::string::npos) return Bad(absl::StrCat("env.", name), "holds a NUL byte");
  }
  return absl::OkStatus();
}

absl::Status CheckRestart(const v1::RestartPolicy& restart) {
  for (const auto& [name, budget] : restart.budgets()) {
    if (!CauseFromName(name).has_value())
      return Bad("restart.budgets", "unknown cause ", Show(name), "; allowed: ", absl::StrJoin(CauseNames(), ", "));
    const JobField& budgets = JobFieldAt("restart.budgets.*");
    RETURN_IF_ERROR(CheckRange(absl::StrCat("restart.budgets.", name), budget, budgets.low(), budgets.high()));
  }
  RETURN_IF_ERROR(CheckDuration("restart.backoff_initial", restart.backoff_initial()));
  RETURN_IF_ERROR(CheckDuration("restart.backoff_max", restart.backoff_max()));
  if (const JobField& jitter = JobFieldAt("restart.backoff_jitter"); !InRange(jitter, restart.backoff_jitter()))
    return Bad("restart.backoff_jitter", restart.backoff_jitter(), "; allowed: ", jitter.low(), " to ", jitter.high());
  return CheckField("restart.max_generations_without_progress", restart.max_generations_without_progress());
}

absl::Status CheckTask(const v1::TaskSpec& task) {
  if (task.name().empty()) return Bad("task.name", "missing; name a built-in task, or one that task.library registers");
  if (task.name().size() > 128 || !Printable(task.name()))
    return Bad("task.name", Show(task.name()), "; allowed: 1 to 128 printable bytes");
  if (!task.library().empty() &&
      (task.library()[0] != '/' || task.library().size() > 4096 || !Printable(task.library()))) {
    return Bad("task.library", Show(task.library()), "; allowed: an absolute path");
  }
  if (task.options_json().size() > kMaxJsonBytes)
    return Bad("task.options", task.options_json().size(), " bytes; allowed: ", kMaxJsonBytes);
  if (!task.options_json().empty()) {
    const nlohmann::json options = ParseJsonText(task.options_json());
    if (!options.is_object()) return Bad("task.options", "not a JSON object");
  }
  return absl::OkStatus();
}

absl::Status CheckTrainStep(const RunnerConfig& config, const std::string& device) {
  if (const std::string precision = EffectivePrecision(config); precision != "" && precision != "fp32")
    return Bad("runner.precision", Show(precision), " ", kTrainStepPrecision);
  if (device == "cuda") return Bad("resources.device", Show(device), " ", kTrainStepDevice);
  return absl::OkStatus();
}

absl::Status CheckRunner(const v1::JobSpec& spec, RunnerConfig* config, nlohmann::json* canonical) {
  const std::string& text = spec.runner_json();
  if (text.size() > kMaxJsonBytes) return Bad("runner", text.size(), " bytes; allowed: ", kMaxJsonBytes);
  const nlohmann::json runner = ParseJsonText(text.empty() ? "{}" : text);
  if (!runner.is_object()) return Bad("runner", "not a JSON object");
  const std::vector<FieldProblem> problems = CheckRunnerConfig(runner, config);
  if (problems.empty()) {
    *canonical = CanonicalRunner(runner, *config);
    return IsTrainStep(spec.task().name(), spec.task().library()) ? CheckTrainStep(*config, spec.resources().device())
                                                                  : absl::OkStatus();
  }
  std::vector<std::string> lines;
  lines.reserve(problems.size());
  for (const FieldProblem& problem : problems)
    lines.push_back(absl::StrCat("runner.", problem.path, ": ", problem.message));
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

}  // namespace

std::string Show(const std::string& value) {
  constexpr size_t kShown = 64;
  return absl::StrCat("'", absl::CHexEscape(CutUtf8(value, kShown)),
                      value.size() > kShown ? absl::StrCat("…' (", value.size(), " bytes)") : "'");
}

absl::Status CheckName(const std::string& field, const std::string& value, size_t limit) {
  if (IsName(value, limit)) return absl::OkStatus();
  return Bad(field, Show(value), "; allowed: ", kNamePattern, ", at most ", limit, " bytes");
}

absl::Status CheckJobSpec(const v1::JobSpec& spec) {
  return TakeJobSpec(spec).status();
}

absl::StatusOr<core::JobSpec> TakeJobSpec(v1::JobSpec spec) {
  RETURN_IF_ERROR(CheckSpecSize(spec));
  RETURN_IF_ERROR(CheckName("name", spec.name()));
  RETURN_IF_ERROR(CheckMap("labels", spec.labels(), kMaxLabelBytes));
  RETURN_IF_ERROR(CheckTask(spec.task()));
  const v1::ResourceRequest& resources = spec.resources();
  RETURN_IF_ERROR(CheckField("resources.ranks", resources.ranks()));
  RETURN_IF_ERROR(CheckField("resources.slots_per_rank", resources.slots_per_rank(), true));
  RETURN_IF_ERROR(CheckField("resources.threads_per_rank", resources.threads_per_rank(), true));
  RETURN_IF_ERROR(CheckChoice("resources.device", resources.device()));
  RETURN_IF_ERROR(CheckField("priority", spec.priority()));
  RETURN_IF_ERROR(CheckRestart(spec.restart()));
  RETURN_IF_ERROR(CheckDuration("timeouts.join", spec.timeouts().join()));
  RETURN_IF_ERROR(CheckDuration("timeouts.startup", spec.timeouts().startup()));
  RETURN_IF_ERROR(CheckDuration("timeouts.hang", spec.timeouts().hang()));
  RETURN_IF_ERROR(CheckDuration("timeouts.stop_grace", spec.timeouts().stop_grace()));
  RETURN_IF_ERROR(CheckChoice("fencing", spec.fencing()));
  RETURN_IF_ERROR(CheckEnv(spec.env()));
  RETURN_IF_ERROR(CheckChoice("log_format", spec.log_format()));
  if (!spec.parent_job().empty()) RETURN_IF_ERROR(CheckReference("parent.job", spec.parent_job()));
  if (!spec.parent_checkpoint().empty()) RETURN_IF_ERROR(CheckReference("parent.checkpoint", spec.parent_checkpoint()));
  RunnerConfig config;
  nlohmann::json canonical;
  RETURN_IF_ERROR(CheckRunner(spec, &config, &canonical));
  spec.set_runner_json(canonical.dump());
  RETURN_IF_ERROR(CheckSpecSize(spec));  // the canonical form may be longer
  return CoreSpec(spec, static_cast<int32_t>(std::min<int64_t>(config.checkpoint.keep_latest_k, 1 << 30)));
}

absl::Status CheckSpecSize(const v1::JobSpec& spec) {
  const size_t bytes = spec.ByteSizeLong();
  if (bytes <= static_cast<size_t>(kMaxSpecBytes)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the job: ", bytes, " bytes with all options and variables; allowed: ",
                                                 kMaxSpecBytes, ". Larger data belongs into files"));
}

absl::Status CheckStep(core::Step step) {
  if (step >= 0 && step <= kMaxStep) return absl::OkStatus();
  return Bad("step", step, "; allowed: 0 to ", kMaxStep);
}

absl::Status CheckRankCall(const v1::RankCall& call) {
  switch (call.request_case()) {
    case v1::RankCall::kJoin:
      if (call.join().endpoint().size() <= 256 && Printable(call.join().endpoint())) return absl::OkStatus();
      return Bad("endpoint", Show(call.join().endpoint()), "; allowed: host:port, at most 256 bytes");
    case v1::RankCall::kCommitShard: {
      const v1::ShardInfo& shard = call.commit_shard().shard();
      RETURN_IF_ERROR(CheckStep(call.commit_shard().step()));
      if (shard.bytes() < 0) return Bad("shard.bytes", shard.bytes(), "; allowed: 0 and more");
      if (shard.file().empty() || shard.file().size() > 255 || shard.file().find('/') != std::string::npos ||
          !Printable(shard.file()))
        return Bad("shard.file", Show(shard.file()), "; allowed: the name of a file, 1 to 255 bytes");
      return absl::OkStatus();
    }
    case v1::RankCall::kCommitManifest: {
      const v1::CommitManifest& manifest = call.commit_manifest();
      RETURN_IF_ERROR(CheckStep(manifest.step()));
      if (manifest.bytes() < 0) return Bad("bytes", manifest.bytes(), "; allowed: 0 and more");
      if (!(manifest.save_seconds() >= 0)) return Bad("save_seconds", manifest.save_seconds(), "; allowed: 0 and more");
      return absl::OkStatus();
    }
    case v1::RankCall::kFinish:
      return absl::OkStatus();
    case v1::RankCall::kReportEvaluation:
      return CheckStep(call.report_evaluation().step());
    case v1::RankCall::kReportDamage:
      return CheckStep(call.report_damage().step());
    case v1::RankCall::kAbandonCheckpoint:
      return CheckStep(call.abandon_checkpoint().step());
    default:
      return absl::InvalidArgumentError("a rank's call without a request");
  }
}

absl::Status CheckRegister(const v1::Register& message) {
  RETURN_IF_ERROR(CheckName("worker", message.worker(), kMaxWorkerNameBytes));
  RETURN_IF_ERROR(CheckRange("slots", message.slots(), 0, 1024));
  RETURN_IF_ERROR(CheckMap("labels", message.labels(), 256));
  const std::pair<const char*, const std::string&> texts[] = {{"host", message.host()},
                                                              {"device", message.device()},
                                                              {"version", message.version()},
                                                              {"instance", message.instance()}};
  for (const auto& [field, text] : texts) {
    if (text.size() > 256 || !Printable(text)) return Bad(field, Show(text), "; allowed: at most 256 printable bytes");
  }
  return absl::OkStatus();
}

absl::Status CheckRequestKey(const std::string& key, bool required) {
  if (key.empty() && !required) return absl::OkStatus();
  if (!key.empty() && key.size() <= 128 && Printable(key)) return absl::OkStatus();
  return Bad("request_key", Show(key), "; allowed: 1 to 128 printable bytes, a fresh one for each new request");
}

absl::Status CheckReference(const std::string& field, const std::string& value) {
  return CheckName(field, value, 128);
}

}  // namespace athanor

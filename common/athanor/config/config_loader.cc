#include "athanor/config/config_loader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/base/json_text.h"
#include "athanor/config/config_spellings.h"
#include "athanor/config/config_validation.h"

namespace athanor {
namespace {

void Flatten(const nlohmann::json& json, const std::string& path, std::map<std::string, nlohmann::json>* leaves) {
  if (!json.is_object()) {
    leaves->emplace(path, json);
    return;
  }
  for (const auto& [key, value] : json.items()) Flatten(value, JoinPath(path, key), leaves);
}

std::string Short(const nlohmann::json& value) {
  constexpr size_t kShown = 200;
  std::string text = value.is_number_float() ? NumberText(value.get<double>())
                                             : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() > kShown ? CutUtf8(text, kShown) + "…" : text;
}

nlohmann::json ParseLiteral(absl::string_view text) {
  nlohmann::json value = ParseJsonText({text.data(), text.size()});
  if (!value.is_discarded()) return value;
  // Numbers that JSON does not know: ".5", "+1", "1."; but not names such as "inf".
  double number = 0;
  if (text.find_first_of("0123456789") != absl::string_view::npos &&
      text.find_first_not_of("0123456789+-.eE") == absl::string_view::npos && absl::SimpleAtod(text, &number) &&
      std::isfinite(number)) {
    return number;
  }
  return std::string(text);
}

}  // namespace

namespace {

constexpr absl::string_view kOfPython =
    "belongs to torch.compile, which runs in Python; here: \"compile.backend\" cuda_graphs, or a task train_step";

constexpr absl::string_view kNoPipeline = "not available yet: pipelines";

// Options that users of other trainers bring along. The nearest name would lead them astray.
void ExplainAbsent(std::vector<FieldProblem>* problems) {
  static const std::map<absl::string_view, absl::string_view> reasons = {
      {"ckpt", "not all of its options are understood under this name; allowed: \"checkpoint\""},
      {"wandb",
       "not written: the format of offline runs belongs to the wandb package. Set \"jsonl: true\" and run "
       "scripts/wandb_import.py on the run's metrics.jsonl"},
      {"compile.mode", kOfPython},
      {"compile.fullgraph", kOfPython},
      {"compile.dynamic", kOfPython},
      {"compile.options", kOfPython},
      {"compile.optimize_ddp", kOfPython},
      {"compile.precompile_artifact_dir", kOfPython},
      {"compile.memory_policy", kOfPython},
      {"fp8.recipe_cls", "a class of Python's; allowed: \"fp8.recipe\""},
      {"fp8.recipe_kwargs", "arguments of a class of Python's; allowed: \"fp8.recipe\""},
      {"fp8.group", "not needed: scales are each rank's own"},
      {"dataloader.worker_init_fn", "a function of Python's workers; here randomness belongs to the sample"},
      {"dataloader.generator", "an object of Python's; allowed: \"dataloader.seed\""},
      {"ft", "not needed: the service restarts lost ranks by itself"},
      {"activation_checkpoint.checkpoint_impl", "not needed: there is one way"},
      {"fsdp.mesh", "not needed: allowed: \"parallel.axes\""},
      {"fsdp.shard_placement_fn", "a function of Python's; here units are divided evenly, element by element"},
      {"fsdp.offload_policy", "not available yet"},
      {"parallel.pipeline_schedule", kNoPipeline},
      {"parallel.pipeline_microbatch_size", kNoPipeline},
      {"parallel.pipeline_n_microbatches", kNoPipeline},
      {"parallel.module_fqns_per_model_part", kNoPipeline},
      {"parallel.use_device_mesh", "not needed: the ranks' groups are made as they are used"},
      {"parallel.mesh_device_type", "not needed: the device is that of the run"},
      {"deepspeed", "not available: allowed: \"fsdp\" with \"stack: parallel\""},
  };
  for (FieldProblem& problem : *problems) {
    const auto reason = reasons.find(problem.path);
    if (reason != reasons.end()) problem.message = std::string(reason->second);
  }
}

// Of `complete` what `given` names, at any depth.
nlohmann::json Named(const nlohmann::json& complete, const nlohmann::json& given) {
  if (given.is_null()) return given;
  if (!given.is_object() || !complete.is_object()) return complete.is_null() ? given : complete;
  nlohmann::json named = nlohmann::json::object();
  for (const auto& [key, value] : given.items()) {
    const auto known = complete.find(key);
    named[key] = known == complete.end() ? value : Named(*known, value);
  }
  return named;
}

}  // namespace

std::vector<FieldProblem> CheckRunnerConfig(const nlohmann::json& json, RunnerConfig* out) {
  std::vector<FieldProblem> problems;
  RunnerConfig config;
  std::vector<Respelling> respellings;
  CheckStruct(CanonicalSpellings(json, &respellings, &problems), "", &config, &problems);
  ExplainAbsent(&problems);
  if (json.is_object()) AddContradictions(config, &problems);
  for (FieldProblem& problem : problems) problem.path = AsTyped(problem.path, respellings);
  if (out != nullptr) *out = std::move(config);
  return problems;
}

nlohmann::json CanonicalRunner(const nlohmann::json& json, const RunnerConfig& config) {
  std::vector<Respelling> respellings;
  std::vector<FieldProblem> problems;
  return Named(StructToJson(config), CanonicalSpellings(json, &respellings, &problems));
}

std::vector<FieldProblem> CheckRunnerConfig(const RunnerConfig& config) {
  return CheckRunnerConfig(ToJson(config), nullptr);
}

absl::Status ToStatus(const std::vector<FieldProblem>& problems) {
  constexpr size_t kShown = 20;  // a file of another kind has thousands
  if (problems.empty()) return absl::OkStatus();
  const auto end = problems.begin() + static_cast<std::ptrdiff_t>(std::min(problems.size(), kShown));
  std::string text = absl::StrJoin(problems.begin(), end, "; ", [](std::string* out, const FieldProblem& problem) {
    absl::StrAppend(out, problem.path, problem.path.empty() ? "" : ": ", problem.message);
  });
  if (problems.size() > kShown) absl::StrAppend(&text, "; and ", problems.size() - kShown, " more");
  return absl::InvalidArgumentError(text);
}

nlohmann::json ToJson(const RunnerConfig& config) {
  return StructToJson(config);
}

bool MayChangeOnResume(absl::string_view path) {
  static constexpr absl::string_view kFree[] = {"log_interval",
                                                "evaluate",
                                                "checkpoint",
                                                "steps",
                                                "epochs",
                                                "patience",
                                                "score",
                                                "comm",
                                                "threads",
                                                "log",
                                                "workspace_root",
                                                "lineage",
                                                "experiment",
                                                "name",
                                                "dir",
                                                "tensorboard",
                                                "heartbeat",
                                                "auto_resume",
                                                "resume",
                                                "pretrained",
                                                "max_nonfinite_losses",
                                                "csv",
                                                "jsonl",
                                                "profiling",
                                                "gc",
                                                "stack",
                                                "parallel",
                                                "fsdp",
                                                "console",
                                                "compile",
                                                "log_file",
                                                "checkpoint_dir",
                                                "pretrained_key_mapping",
                                                "activation_checkpoint"};
  static constexpr absl::string_view kLoader[] = {"num_workers",
                                                  "prefetch_factor",
                                                  "in_order",
                                                  "pin_memory",
                                                  "timeout",
                                                  "persistent_workers",
                                                  "snapshot_every_n_steps",
                                                  "pin_memory_device",
                                                  "multiprocessing_context"};
  for (absl::string_view key : kFree) {
    if (path == key || absl::StartsWith(path, absl::StrCat(key, "."))) return true;
  }
  if (!absl::StartsWith(path, "dataloader.")) return false;
  const absl::string_view last = path.substr(path.rfind('.') + 1);
  return std::find(std::begin(kLoader), std::end(kLoader), last) != std::end(kLoader);
}

std::vector<std::string> ResumeDifferences(const nlohmann::json& saved, const RunnerConfig& current) {
  std::vector<std::string> differences;
  std::vector<FieldProblem> problems;
  RunnerConfig known;  // the saved one, with today's defaults where it is silent
  CheckStruct(saved, "", &known, &problems);
  for (const FieldProblem& problem : problems) {
    if (!MayChangeOnResume(problem.path))
      differences.push_back(absl::StrCat(problem.path, ": saved by another version: ", problem.message));
  }
  std::map<std::string, nlohmann::json> before, now;
  Flatten(ToJson(known), "", &before);
  Flatten(ToJson(current), "", &now);
  std::set<std::string> paths;
  for (const auto& [path, value] : before) paths.insert(path);
  for (const auto& [path, value] : now) paths.insert(path);
  const nlohmann::json absent;
  for (const std::string& path : paths) {
    const auto old = before.find(path), fresh = now.find(path);
    const nlohmann::json& was = old == before.end() ? absent : old->second;
    const nlohmann::json& is = fresh == now.end() ? absent : fresh->second;
    if (was == is || MayChangeOnResume(path)) continue;
    differences.push_back(absl::StrCat(path, ": saved ", Short(was), ", now ", Short(is)));
  }
  return differences;
}

absl::Status ApplyOverride(nlohmann::json& json, absl::string_view path, absl::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  const auto error = [&](auto&&... what) {
    return absl::InvalidArgumentError(absl::StrCat("override ", path, ": ", what...));
  };
  if (std::find(parts.begin(), parts.end(), "") != parts.end()) return error("empty part in the path");
  if (!IsUtf8({path.data(), path.size()}) || !IsUtf8({text.data(), text.size()})) return error("not UTF-8");
  if (parts.size() > kMaxJsonDepth / 2) return error(parts.size(), " parts; allowed: ", kMaxJsonDepth / 2);
  nlohmann::json* place = &json;
  std::string walked;
  for (const std::string& part : parts) {
    if (place->is_null()) *place = nlohmann::json::object();
    if (place->is_object()) {
      place = &(*place)[part];
    } else if (place->is_array()) {
      uint64_t index = 0;
      if (!absl::SimpleAtoi(part, &index) || index >= place->size()) {
        return error("\"", part, "\" is no element of the list \"", walked, "\"; allowed: 0 to ", place->size(),
                     " exclusive");
      }
      place = &(*place)[index];
    } else {
      return error("\"", walked, "\" is ", DescribeJson(*place), ", nothing can be set below it");
    }
    walked = JoinPath(walked, part);
  }
  *place = ParseLiteral(text);
  return absl::OkStatus();
}

}  // namespace athanor

#include "athanor/config/config_identity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "athanor/base/fingerprint.h"
#include "athanor/config/config_loader.h"

namespace athanor {
namespace {

using nlohmann::json;

constexpr std::array<absl::string_view, 20> kNotSemantic = {"score_split",  "score_name",
                                                            "score",        "log",
                                                            "log_interval", "tensorboard",
                                                            "wandb",        "ft",
                                                            "comm",         "gc",
                                                            "profiling",    "heartbeat",
                                                            "lineage",      "experiment",
                                                            "resume",       "pretrained",
                                                            "auto_resume",  "workspace_root",
                                                            "workspace",    "pretrained_key_mapping"};

constexpr std::array<absl::string_view, 15> kCheckpointOptions = {"dir_name",
                                                                  "wait_timeout",
                                                                  "interval",
                                                                  "keep_latest_k",
                                                                  "load_only",
                                                                  "async_enabled",
                                                                  "async_mode",
                                                                  "dedicated_async_process_group",
                                                                  "async_process_group_backend",
                                                                  "enable_ft_dataloader_checkpoints",
                                                                  "ft_replica_id",
                                                                  "ft_dataloader_checkpoint_prefix",
                                                                  "exclude_from_loading",
                                                                  "last_save_model_only",
                                                                  "export_dtype"};

// What a configuration that says nothing means, of the semantic keys.
const json& Defaults() {
  static const json defaults = {{"seed", nullptr},
                                {"deterministic", false},
                                {"steps", nullptr},
                                {"epochs", nullptr},
                                {"accum_steps", 1},
                                {"compile",
                                 {{"enable", false},
                                  {"backend", nullptr},
                                  {"mode", nullptr},
                                  {"fullgraph", nullptr},
                                  {"dynamic", nullptr},
                                  {"options", nullptr},
                                  {"optimize_ddp", "ddp_optimizer"},
                                  {"precompile_artifact_dir", nullptr},
                                  {"memory_policy", nullptr}}},
                                {"checkpoint", {{"backend", "auto"}}}};
  return defaults;
}

const json& ParallelDefaults() {
  static const json defaults = {{"pipeline_schedule", "1F1B"},
                                {"pipeline_microbatch_size", 1},
                                {"pipeline_n_microbatches", nullptr},
                                {"module_fqns_per_model_part", nullptr},
                                {"use_device_mesh", true},
                                {"mesh_device_type", nullptr},
                                {"allow_degree_change", false},
                                {"axes",
                                 {{"replicate", 1},
                                  {"shard", 1},
                                  {"context", 1},
                                  {"pipeline", 1},
                                  {"tensor", 1},
                                  {"expert", 1},
                                  {"expert_tensor", 1}}}};
  return defaults;
}

const json& FsdpDefaults() {
  static const json defaults = {{"enabled", false},
                                {"mesh", nullptr},
                                {"reshard_after_forward", nullptr},
                                {"shard_placement_fn", nullptr},
                                {"mp_policy", nullptr},
                                {"offload_policy", nullptr},
                                {"ignored_params", nullptr}};
  return defaults;
}

// Mappings are merged, everything else of `over` wins, null included.
json Overlaid(json base, const json& over) {
  if (!base.is_object() || !over.is_object()) return over;
  for (const auto& [key, value] : over.items()) {
    const auto found = base.find(key);
    base[key] = found == base.end() ? value : Overlaid(*found, value);
  }
  return base;
}

bool Contains(const auto& names, const std::string& name) {
  return std::find(names.begin(), names.end(), absl::string_view(name)) != names.end();
}

// The same number is the same text: 1.0 as 1.
json Normalized(const json& value) {
  if (value.is_object() || value.is_array()) {
    json copy = value;
    for (json& item : copy) item = Normalized(item);
    return copy;
  }
  if (!value.is_number_float()) return value;
  const double number = value.get<double>();
  const bool whole = std::trunc(number) == number && std::abs(number) < 9e15;
  return whole ? json(static_cast<int64_t>(number)) : value;
}

// The keys of `of` that are missing or other in `than`.
json OneSided(const json& of, const json& than) {
  json result = json::object();
  for (const auto& [key, value] : of.items()) {
    const auto found = than.find(key);
    if (found == than.end()) {
      result[key] = value;
    } else if (value.is_object() && found->is_object()) {
      if (json below = OneSided(value, *found); !below.empty()) result[key] = std::move(below);
    } else if (value != *found) {
      result[key] = value;
    }
  }
  return result;
}

void AddPaths(const json& value, const std::string& path, std::set<std::string>* paths) {
  if (!value.is_object() || (value.empty() && !path.empty())) {
    paths->insert(path);
    return;
  }
  for (const auto& [key, item] : value.items()) AddPaths(item, JoinPath(path, key), paths);
}

}  // namespace

std::string CanonicalStack(absl::string_view stack) {
  std::string name = absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripAsciiWhitespace(stack)), {{"-", "_"}});
  if (name.empty() || name == "auto" || name == "torch") return "ddp";
  if (name == "ds") return "deepspeed";
  if (name == "graph_runner") return "graph";
  return name;
}

absl::Status CheckStack(absl::string_view stack) {
  const std::string name = CanonicalStack(stack);
  if (name == "ddp" || name == "deepspeed" || name == "graph" || name == "parallel") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("stack: found \"", stack, "\"; allowed: auto, ddp, deepspeed, ds, graph, parallel, torch"));
}

json CanonicalConfig(const json& config) {
  json canonical = Defaults();
  if (!config.is_object()) return canonical;
  const auto stack = config.find("stack");
  const std::string name = CanonicalStack(stack != config.end() && stack->is_string() ? stack->get<std::string>() : "");
  for (const auto& [key, value] : config.items()) {
    if (Contains(kNotSemantic, key) || key == "fsdp" || key == "parallel" || key == "checkpoint") continue;
    const auto found = canonical.find(key);
    canonical[key] = found == canonical.end() ? value : Overlaid(*found, value);
  }
  canonical["stack"] = name;
  if (const auto checkpoint = config.find("checkpoint"); checkpoint != config.end() && checkpoint->is_object()) {
    for (const auto& [key, value] : checkpoint->items()) {
      if (!Contains(kCheckpointOptions, key)) canonical["checkpoint"][key] = value;
    }
    json& backend = canonical["checkpoint"]["backend"];
    if (backend.is_string()) backend = absl::AsciiStrToLower(absl::StripAsciiWhitespace(backend.get<std::string>()));
  }
  if (name == "parallel") {
    const auto parallel = config.find("parallel"), fsdp = config.find("fsdp");
    canonical["parallel"] = parallel == config.end() ? ParallelDefaults() : Overlaid(ParallelDefaults(), *parallel);
    if (fsdp != config.end()) canonical["fsdp"] = Overlaid(FsdpDefaults(), *fsdp);
  }
  return Normalized(canonical);
}

std::string ConfigId(const json& config) {
  const uint64_t hash = Fingerprint(CanonicalConfig(config).dump(-1, ' ', false, json::error_handler_t::replace));
  return absl::StrFormat("%012x", (hash ^ (hash >> 48)) & 0xffffffffffffull);
}

absl::Status CheckBoundaries(const json& config) {
  const auto given = [&](const char* key) {
    const auto found = config.find(key);
    return found != config.end() && !found->is_null();
  };
  if (config.is_object() && given("steps") && given("epochs")) {
    return absl::InvalidArgumentError("steps and epochs are both set; allowed: one of the two");
  }
  return absl::OkStatus();
}

std::vector<std::string> ConfigDifference::Paths() const {
  std::set<std::string> paths;
  if (!changed.empty()) AddPaths(changed, "", &paths);
  if (!before.empty()) AddPaths(before, "", &paths);
  return {paths.begin(), paths.end()};
}

std::vector<std::string> ConfigDifference::ForbiddenPaths() const {
  std::vector<std::string> forbidden;
  for (std::string& path : Paths()) {
    if (!MayChangeOnResume(path)) forbidden.push_back(std::move(path));
  }
  return forbidden;
}

ConfigDifference SemanticDifference(const json& saved, const json& current) {
  const json then = CanonicalConfig(saved), now = CanonicalConfig(current);
  return {OneSided(now, then), OneSided(then, now)};
}

}  // namespace athanor

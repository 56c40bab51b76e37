#include "athanor/runner/record/workspace.h"

#include <filesystem>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_identity.h"
#include "athanor/config/config_loader.h"

namespace athanor {
namespace {

absl::Status CheckName(absl::string_view key, const std::string& value) {
  const bool plain = !value.empty() && value != "." && value != ".." && value.find('/') == std::string::npos;
  if (plain) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, ": '", value, "'; allowed: the name of a folder"));
}

// Whether YAML would take the plain text for something else than this string.
bool NeedsQuotes(const std::string& text) {
  if (text.empty() || absl::ascii_isspace(text.front()) || absl::ascii_isspace(text.back())) return true;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) return true;
  }
  if (text.find_first_of(":#{}[],&*!|>'\"%@`\\") != std::string::npos || text[0] == '-' || text[0] == '?') return true;
  const std::string lower = absl::AsciiStrToLower(text);
  for (const char* word : {"null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf"}) {
    if (lower == word) return true;
  }
  return absl::ascii_isdigit(text[0]) || text[0] == '.' || text[0] == '+';
}

std::string YamlScalar(const nlohmann::json& json) {
  if (json.is_string() && !NeedsQuotes(json.get<std::string>())) return json.get<std::string>();
  return json.dump();  // a JSON scalar is a YAML scalar; so are {} and []
}

void AppendYaml(const nlohmann::json& json, const std::string& indent, std::string* out);

void AppendEntry(const nlohmann::json& value, const std::string& indent, std::string* out) {
  if (value.is_structured() && !value.empty()) {
    absl::StrAppend(out, "\n");
    AppendYaml(value, indent + "  ", out);
  } else {
    absl::StrAppend(out, " ", YamlScalar(value), "\n");
  }
}

void AppendYaml(const nlohmann::json& json, const std::string& indent, std::string* out) {
  for (const auto& [key, value] : json.items()) {
    absl::StrAppend(out, indent, json.is_array() ? "-" : absl::StrCat(YamlScalar(key), ":"));
    AppendEntry(value, indent, out);
  }
}

}  // namespace

std::string ToYaml(const nlohmann::json& json) {
  if (!json.is_structured() || json.empty()) return YamlScalar(json) + "\n";
  std::string out;
  AppendYaml(json, "", &out);
  return out;
}

absl::StatusOr<Workspace> ResolveWorkspace(const RunnerConfig& config, absl::Time now, const std::string& code_folder) {
  RETURN_IF_ERROR(CheckName("lineage", config.lineage));
  RETURN_IF_ERROR(CheckName("experiment", config.experiment));
  Workspace workspace;
  if (!code_folder.empty()) workspace.code = ReadGitCheckout(code_folder);
  const std::string code = workspace.code.code_id();
  workspace.id = absl::StrCat(code, code.empty() ? "" : "-", ConfigId(ToJson(config)));
  workspace.name = config.name.value_or(absl::StrCat(config.lineage, "-", config.experiment));
  workspace.timestamp = absl::FormatTime("%Y%m%d-%H%M%S-%E6f", now, absl::UTCTimeZone());
  workspace.dir = config.dir.value_or(
      absl::StrCat(config.workspace_root, "/", config.lineage, code.empty() ? "" : "-", code, "/", workspace.id));
  const std::filesystem::path checkpoints(config.checkpoint.dir_name);
  workspace.checkpoint_dir =
      checkpoints.is_absolute() ? checkpoints.string() : absl::StrCat(workspace.dir, "/", checkpoints.string());
  if (config.checkpoint_dir.has_value()) workspace.checkpoint_dir = *config.checkpoint_dir;
  workspace.log_path = config.log_file.value_or("");
  return workspace;
}

bool NeedsWorkspace(const RunnerConfig& config) {
  const RunnerConfig defaults;
  const bool named = config.dir.has_value() || config.checkpoint_dir.has_value() || config.log_file.has_value() ||
                     config.name.has_value() || config.workspace_root != defaults.workspace_root ||
                     config.lineage != defaults.lineage || config.experiment != defaults.experiment;
  return named || config.auto_resume || config.checkpoint.interval.value_or(0) > 0 || config.tensorboard ||
         config.csv || config.jsonl || config.heartbeat.enabled || config.profiling.enabled;
}

absl::Status WriteMetadata(const Workspace& workspace, const RunnerConfig& config) {
  const std::string folder = workspace.dir + "/metadata";
  RETURN_IF_ERROR(EnsureDir(folder));
  for (const char* name : {"/config.full.yaml", "/config.full.json", "/config.canonical.yaml", "/config.diff.yaml",
                           "/git.yaml", "/git.diff"})
    RemoveLeftovers(folder + name);
  const nlohmann::json full = ToJson(config);
  const nlohmann::json defaults = ToJson(RunnerConfig());
  RETURN_IF_ERROR(WriteFileAtomically(folder + "/config.full.yaml", ToYaml(full)));
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(workspace.dir, "/", kConfigFile), full.dump(1) + "\n"));
  RETURN_IF_ERROR(WriteFileAtomically(folder + "/config.canonical.yaml", ToYaml(CanonicalConfig(full))));
  RETURN_IF_ERROR(
      WriteFileAtomically(folder + "/config.diff.yaml", ToYaml(SemanticDifference(defaults, full).changed)));
  const GitCheckout& code = workspace.code;
  RemoveFile(folder + "/git.diff");  // of an earlier start in a chosen folder
  if (code.commit.empty()) return absl::OkStatus();
  if (!code.diff.empty()) RETURN_IF_ERROR(WriteFileAtomically(folder + "/git.diff", code.diff));
  const nlohmann::json git = {{"commit", code.commit}, {"id", workspace.id}, {"timestamp", workspace.timestamp}};
  return WriteFileAtomically(folder + "/git.yaml", ToYaml(git));
}

nlohmann::json IdentityOf(const Workspace& workspace) {
  return {{"name", workspace.name}, {"id", workspace.id}, {"timestamp", workspace.timestamp}};
}

}  // namespace athanor

#include "athanor/tools/config_file.h"

#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/tools/load_save.h"

namespace athanor {
namespace {

constexpr char kRunConfigHelp[] =
    "Options: --config FILE (.yaml, .yml, .json), and --NAME VALUE or --NAME=VALUE for every option of a run, such as\n"
    "  --steps 1000   --optim.type adamw   --optim.lr 0.01   --dataloader.batch_size 64   --dir runs/first\n"
    "The file is read first, the options are laid over it in their order. docs/configuration.md describes each.";

struct Arguments {
  std::string file;
  std::vector<std::pair<std::string, std::string>> overrides;
};

absl::StatusOr<Arguments> Divide(const std::vector<std::string>& arguments) {
  Arguments divided;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!absl::StartsWith(argument, "--") || argument.size() == 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("arguments: found \"", argument, "\"; allowed: --config FILE, --option VALUE, --option=VALUE"));
    }
    if (argument == "--help") return absl::CancelledError(kRunConfigHelp);
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (equals == std::string::npos && i + 1 == arguments.size())
      return absl::InvalidArgumentError(absl::StrCat("arguments: --", name, " has no value"));
    std::string value = equals == std::string::npos ? arguments[++i] : argument.substr(equals + 1);
    if (name != "config") {
      divided.overrides.emplace_back(name, std::move(value));
    } else if (divided.file.empty()) {
      divided.file = std::move(value);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("arguments: found --config ", divided.file, " and --config ", value, "; allowed: one file"));
    }
  }
  return divided;
}

absl::StatusOr<nlohmann::json> ReadMapping(const std::string& path) {
  ASSIGN_OR_RETURN(Loaded loaded, Load(path));
  auto* json = std::get_if<nlohmann::json>(&loaded);
  if (json != nullptr && json->is_null()) return nlohmann::json::object();  // an empty file
  if (json != nullptr && json->is_object()) return std::move(*json);
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": found no mapping; allowed: a configuration in .yaml, .yml or .json"));
}

}  // namespace

absl::StatusOr<RunnerConfig> ReadRunConfig(const std::vector<std::string>& arguments, const nlohmann::json& defaults) {
  ASSIGN_OR_RETURN(const Arguments divided, Divide(arguments));
  nlohmann::json json = defaults.is_null() ? nlohmann::json::object() : defaults;
  if (!divided.file.empty()) {
    ASSIGN_OR_RETURN(const nlohmann::json file, ReadMapping(divided.file));
    json.update(file, /*merge_objects=*/true);
  }
  for (const auto& [path, value] : divided.overrides) RETURN_IF_ERROR(ApplyOverride(json, path, value));
  RunnerConfig config;
  const absl::Status checked = ToStatus(CheckRunnerConfig(json, &config));
  if (checked.ok()) return config;
  return divided.file.empty() ? checked : Annotate(checked, divided.file);
}

absl::StatusOr<RunnerConfig> ReadRunConfig(int argc, const char* const* argv, const nlohmann::json& defaults) {
  return ReadRunConfig(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), defaults);
}

absl::StatusOr<RunnerConfig> ReadRunConfigFile(const std::string& path) {
  return ReadRunConfig({"--config", path});
}

}  // namespace athanor

#include "client/commands/command.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/reflection.h"
#include "common/service/home_path.h"

namespace athanor {
namespace {

std::string DefaultConfigFile() {
  if (const char* home = std::getenv("XDG_CONFIG_HOME"); home != nullptr && *home != '\0')
    return absl::StrCat(home, "/athanor/config.yaml");
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : absl::StrCat(home, "/.config/athanor/config.yaml");
}

// A path of the configuration file starts at the folder of the file.
std::string Beside(const std::string& file, const std::string& written) {
  const std::string path = ExpandHome(written);
  return path.empty() || path[0] == '/' ? path : (std::filesystem::path(file).parent_path() / path).string();
}

absl::Status CheckKeys(const std::string& path, const YAML::Node& map, const std::vector<std::string>& known) {
  for (const auto& entry : map) {
    const std::string key = entry.first.Scalar();
    if (std::find(known.begin(), known.end(), key) == known.end())
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", entry.first.Mark().line + 1, ": ", key, ": ", UnknownKeyMessage(key, known)));
  }
  return absl::OkStatus();
}

absl::Status ReadContext(const std::string& path, CommandContext& context) {
  const YAML::Node file = YAML::LoadFile(path);
  if (file.IsNull()) return absl::OkStatus();
  if (!file.IsMap()) return absl::InvalidArgumentError(absl::StrCat(path, ":1: expected a map: current, contexts"));
  RETURN_IF_ERROR(CheckKeys(path, file, {"current", "contexts"}));
  const std::string name = !context.context.empty() ? context.context
                           : file["current"]        ? file["current"].as<std::string>()
                                                    : "";
  if (name.empty()) return absl::OkStatus();
  const YAML::Node contexts = file["contexts"];
  const YAML::Node chosen = contexts && contexts.IsMap() ? contexts[name] : YAML::Node(YAML::NodeType::Undefined);
  if (!chosen || !chosen.IsMap()) {
    std::vector<std::string> known;
    if (contexts && contexts.IsMap()) {
      for (const auto& entry : contexts) known.push_back(entry.first.Scalar());
    }
    const std::string near = NearestName(name, known);
    return absl::NotFoundError(absl::StrCat(path, " has no context '", name, "'",
                                            near.empty() ? "" : absl::StrCat(", did you mean '", near, "'?"),
                                            "; there are: ", known.empty() ? "none" : absl::StrJoin(known, ", ")));
  }
  RETURN_IF_ERROR(CheckKeys(path, chosen, {"server", "ca", "certificate", "key", "token_file"}));
  auto fill = [&](std::string& value, const char* key, bool is_path) {
    if (!value.empty() || !chosen[key]) return;
    const std::string written = chosen[key].as<std::string>();
    value = is_path ? Beside(path, written) : written;
  };
  fill(context.server, "server", false);
  fill(context.channel.tls.ca, "ca", true);
  fill(context.channel.tls.certificate, "certificate", true);
  fill(context.channel.tls.key, "key", true);
  fill(context.channel.token_file, "token_file", true);
  return absl::OkStatus();
}

// Fills what no flag and no variable gave from the chosen context of the configuration file.
absl::Status ApplyContext(CommandContext& context) {
  const std::string path = context.config_file.empty() ? DefaultConfigFile() : ExpandHome(context.config_file);
  if (path.empty() || !std::filesystem::exists(path)) {
    if (!context.config_file.empty()) return absl::NotFoundError(absl::StrCat("no configuration file ", path));
    if (!context.context.empty())
      return absl::NotFoundError(absl::StrCat("no context '", context.context, "': ", path, " does not exist"));
    return absl::OkStatus();
  }
  try {
    return ReadContext(path, context);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
}

int CodeOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return kOk;
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return kConflict;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kUnreachable;
    default:
      return kFailure;
  }
}

}  // namespace

OutputFormat CommandContext::format() const {
  return output == "json" ? OutputFormat::kJson : output == "yaml" ? OutputFormat::kYaml : OutputFormat::kTable;
}

absl::StatusOr<CoordinatorClient*> CommandContext::Client() {
  if (client_ != nullptr) return client_.get();
  RETURN_IF_ERROR(ApplyContext(*this));
  if (server.empty()) server = "127.0.0.1:7070";
  for (std::string* file : {&channel.tls.ca, &channel.tls.certificate, &channel.tls.key, &channel.token_file})
    *file = ExpandHome(*file);
  ASSIGN_OR_RETURN(client_,
                   CoordinatorClient::Connect(
                       server, {.channel = channel, .timeout = timeout, .on_note = [this](const std::string& note) {
                                  Say(absl::StrCat("athanor: ", StripControlChars(note)));
                                }}));
  return client_.get();
}

void CommandContext::Report(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "athanor: " << StripControlChars(std::string(status.message())) << "\n";
  exit_code = CodeOf(status.code());
}

void CommandContext::Say(const std::string& text) const {
  if (!quiet) std::cerr << text << "\n";
}

}  // namespace athanor

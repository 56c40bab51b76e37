#include "client/commands/command.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

std::string DefaultConfigFile() {
  if (const char* home = std::getenv("XDG_CONFIG_HOME"); home != nullptr && *home != '\0')
    return absl::StrCat(home, "/athanor/config.yaml");
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : absl::StrCat(home, "/.config/athanor/config.yaml");
}

// Fills what no flag and no variable gave from the chosen context of the configuration file.
absl::Status ApplyContext(CommandContext& context) {
  const std::string path = context.config_file.empty() ? DefaultConfigFile() : context.config_file;
  if (path.empty() || !std::filesystem::exists(path)) {
    if (!context.config_file.empty()) return absl::NotFoundError(absl::StrCat("no configuration file ", path));
    if (!context.context.empty())
      return absl::NotFoundError(absl::StrCat("no context '", context.context, "': ", path, " does not exist"));
    return absl::OkStatus();
  }
  try {
    const YAML::Node file = YAML::LoadFile(path);
    const std::string name = !context.context.empty() ? context.context
                             : file["current"]        ? file["current"].as<std::string>()
                                                      : "";
    if (name.empty()) return absl::OkStatus();
    const YAML::Node chosen = file["contexts"] ? file["contexts"][name] : YAML::Node();
    if (!chosen || !chosen.IsMap()) {
      std::string known;
      for (const auto& entry : file["contexts"])
        absl::StrAppend(&known, known.empty() ? "" : ", ", entry.first.Scalar());
      return absl::NotFoundError(absl::StrCat(path, " has no context '", name, "'; there are: ", known));
    }
    auto fill = [&](std::string& value, const char* key) {
      if (value.empty() && chosen[key]) value = chosen[key].as<std::string>();
    };
    fill(context.server, "server");
    fill(context.channel.tls.ca, "ca");
    fill(context.channel.tls.certificate, "certificate");
    fill(context.channel.tls.key, "key");
    fill(context.channel.token_file, "token_file");
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
  return absl::OkStatus();
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
  ASSIGN_OR_RETURN(client_, CoordinatorClient::Connect(server, channel, timeout));
  return client_.get();
}

void CommandContext::Report(const absl::Status& status) {
  if (status.ok()) return;
  std::string text = Harmless(std::string(status.message()));
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status))
    text = absl::StrCat("coordinator ", server, ": ", text, "; is athanord running there? (--server)");
  std::cerr << "athanor: " << text << "\n";
  exit_code = CodeOf(status.code());
}

void CommandContext::Say(const std::string& text) const {
  if (!quiet) std::cerr << text << "\n";
}

}  // namespace athanor

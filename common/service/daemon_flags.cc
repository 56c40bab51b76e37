#include "common/service/daemon_flags.h"

#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/near_names.h"
#include "common/service/home_path.h"

namespace athanor {
namespace {

constexpr int kExitUsage = 2;

std::string Nearest(const CLI::App& app, const std::string& name) {
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& one : option->get_lnames()) known.push_back(one);
  }
  return NearestName(name, known);
}

// CLI11's configuration format, reading YAML: one flat map of option names.
class YamlConfig : public CLI::Config {
 public:
  explicit YamlConfig(const CLI::App* app) : app_(app) {}
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    YAML::Node document;
    try {
      document = YAML::Load(input);
    } catch (const YAML::Exception& error) {
      throw CLI::ParseError(absl::StrCat("configuration file, line ", error.mark.line + 1, ": ", error.msg),
                            kExitUsage);
    }
    if (document.IsNull()) return items;
    if (!document.IsMap()) throw CLI::ParseError("configuration file: expected a map of option names", kExitUsage);
    for (const auto& entry : document) items.push_back(Item(entry.first, entry.second));
    return items;
  }

 private:
  CLI::ConfigItem Item(const YAML::Node& key, const YAML::Node& value) const {
    std::string name = key.as<std::string>();
    std::replace(name.begin(), name.end(), '_', '-');
    const std::string place = absl::StrCat("configuration file, line ", key.Mark().line + 1, ": ");
    if (app_->get_option_no_throw("--" + name) == nullptr || name == "config") {
      const std::string nearest = Nearest(*app_, name);
      throw CLI::ParseError(absl::StrCat(place, "unknown key '", name, "'",
                                         nearest.empty() ? "" : absl::StrCat("; did you mean '", nearest, "'?")),
                            kExitUsage);
    }
    CLI::ConfigItem item;
    item.name = name;
    if (value.IsScalar()) {
      item.inputs = {ExpandHome(value.Scalar())};
    } else if (value.IsSequence()) {
      for (const auto& one : value) item.inputs.push_back(ExpandHome(one.Scalar()));
    } else if (value.IsMap()) {
      for (const auto& one : value) item.inputs.push_back(absl::StrCat(one.first.Scalar(), "=", one.second.Scalar()));
    } else {
      throw CLI::ParseError(absl::StrCat(place, "'", name, "' has no value"), kExitUsage);
    }
    return item;
  }
  const CLI::App* app_;
};

}  // namespace

void AddConfigFile(CLI::App& app, const std::string& environment_prefix) {
  app.set_config("--config", "", "YAML file with the names of these options as keys")
      ->envname(environment_prefix + "_CONFIG");
  app.config_formatter(std::make_shared<YamlConfig>(&app));
  app.allow_config_extras(CLI::config_extras_mode::error);
}

void BindEnvironment(CLI::App& app, const std::string& environment_prefix) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() || !option->get_envname().empty()) continue;
    const std::string& name = option->get_lnames()[0];
    if (name == "help" || name == "version") continue;
    std::string variable = absl::AsciiStrToUpper(name);
    std::replace(variable.begin(), variable.end(), '-', '_');
    option->envname(absl::StrCat(environment_prefix, "_", variable));
  }
}

CLI::Option* AddDuration(CLI::App& app, const std::string& name, absl::Duration& value, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&value, name](const std::string& text) {
            absl::Duration parsed;
            if (!absl::ParseDuration(text, &parsed) || parsed <= absl::ZeroDuration()) {
              throw CLI::ValidationError(name,
                                         absl::StrCat("'", text, "' is no duration; write it as 200ms, 10s or 5m"));
            }
            value = parsed;
          },
          help)
      ->type_name("DURATION")
      ->default_str(absl::FormatDuration(value));
}

void ParseOrExit(CLI::App& app, int argc, char** argv) {
  // Shells leave the tilde of "--data-dir=~/x" alone.
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) {
    const std::string argument = argv[i];
    const size_t value = absl::StartsWith(argument, "--") ? argument.find('=') + 1 : 0;
    arguments.push_back(absl::StrCat(argument.substr(0, value), ExpandHome(argument.substr(value))));
  }
  app.name(argv[0]);
  try {
    app.parse(std::move(arguments));  // the last word first
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) ExitUsage(app, error);
    app.exit(error, std::cout, std::cerr);
    if (!std::cout.flush()) {
      std::cerr << app.get_name() << ": cannot write the output\n";
      std::exit(1);
    }
    std::exit(0);
  }
}

void ExitUsage(const CLI::App& app, const CLI::ParseError& error) {
  const std::string program = std::filesystem::path(app.get_name()).filename().string();
  std::string problem = error.what();
  for (const std::string& word : app.remaining()) {
    if (!absl::StartsWith(word, "--")) continue;
    const std::string option = word.substr(0, word.find('='));
    const std::string nearest = Nearest(app, option);
    problem = absl::StrCat("no option '", option, "'",
                           nearest.empty() ? "" : absl::StrCat(", did you mean '--", nearest, "'?"));
    break;
  }
  std::cerr << program << ": " << problem << " (" << program << " --help)\n";
  std::exit(kExitUsage);
}

absl::Status WritePortsFile(const std::string& path, const std::map<std::string, int>& ports) {
  if (path.empty()) return absl::OkStatus();
  const std::string temporary = path + ".tmp";
  {
    std::ofstream file(temporary);
    file << nlohmann::json(ports).dump() << "\n";
    file.close();  // a full disk shows here
    if (!file) {
      std::remove(temporary.c_str());
      return absl::FailedPreconditionError(absl::StrCat("cannot write ", temporary, ": ", strerror(errno)));
    }
  }
  chmod(temporary.c_str(), 0644);  // ports are no secret, whatever the umask
  if (std::rename(temporary.c_str(), path.c_str()) != 0)
    return absl::FailedPreconditionError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

}  // namespace athanor

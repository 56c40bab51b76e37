#include "common/service/daemon_flags.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr int kExitUsage = 2;

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string Nearest(const CLI::App& app, const std::string& name) {
  std::string best;
  size_t distance = 4;  // further away is no suggestion
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& known : option->get_lnames()) {
      if (const size_t d = EditDistance(name, known); d < distance) {
        distance = d;
        best = known;
      }
    }
  }
  return best;
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
      item.inputs = {value.Scalar()};
    } else if (value.IsSequence()) {
      for (const auto& one : value) item.inputs.push_back(one.Scalar());
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, std::cout, std::cerr);
    std::exit(code == 0 ? 0 : kExitUsage);
  }
}

absl::Status WritePortsFile(const std::string& path, const std::map<std::string, int>& ports) {
  if (path.empty()) return absl::OkStatus();
  const std::string temporary = path + ".tmp";
  {
    std::ofstream file(temporary);
    file << nlohmann::json(ports).dump() << "\n";
    if (!file) return absl::FailedPreconditionError(absl::StrCat("cannot write ", temporary));
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0)
    return absl::FailedPreconditionError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

}  // namespace athanor

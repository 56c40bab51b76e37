#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/config/reflection.h"
#include "client/commands/command.h"

namespace athanor {
namespace {

std::vector<const CLI::App*> Commands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> Names(const std::vector<const CLI::App*>& commands) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands) names.push_back(command->get_name());
  return names;
}

const CLI::Option* FindOption(const std::vector<const CLI::App*>& levels, const std::string& word) {
  for (const CLI::App* level : levels) {
    if (const CLI::Option* option = level->get_option_no_throw(word)) return option;
  }
  return nullptr;
}

std::string Suggest(const std::string& what, const std::string& word, const std::vector<std::string>& known) {
  const std::string near = NearestName(word, known);
  return absl::StrCat(what, " '", word, "'", near.empty() ? "" : absl::StrCat(", did you mean '", near, "'?"),
                      "; allowed: ", absl::StrJoin(known, ", "));
}

std::string UnknownOption(const std::vector<const CLI::App*>& levels, const std::string& path,
                          const std::string& word) {
  std::vector<std::string> known;
  for (const CLI::App* level : levels) {
    for (const CLI::Option* option : level->get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    }
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return Suggest(absl::StrCat(path, ": no option"), word, known);
}

}  // namespace

std::string ExplainUnknownWord(const CLI::App& app, const std::vector<std::string>& words) {
  std::vector<const CLI::App*> levels = {&app};  // the deepest command first
  std::string path = "athanor";
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") return "";
    if (word.size() > 1 && word[0] == '-') {
      const size_t equals = word.find('=');
      const CLI::Option* option = FindOption(levels, word.substr(0, equals));
      if (option == nullptr && absl::StartsWith(word, "--")) return UnknownOption(levels, path, word.substr(0, equals));
      if (option != nullptr && equals == std::string::npos && option->get_items_expected_min() > 0) ++i;  // its value
      continue;
    }
    const std::vector<const CLI::App*> commands = Commands(*levels.front());
    const auto known = std::find_if(commands.begin(), commands.end(),
                                    [&](const CLI::App* command) { return command->get_name() == word; });
    if (known != commands.end()) {
      levels.insert(levels.begin(), *known);
      absl::StrAppend(&path, " ", word);
    } else if (!commands.empty()) {
      return Suggest(absl::StrCat(path, ": no command"), word, Names(commands));
    }
  }
  const std::vector<const CLI::App*> commands = Commands(*levels.front());
  return commands.empty() ? "" : absl::StrCat(path, ": which command? allowed: ", absl::StrJoin(Names(commands), ", "));
}

std::string ExplainUsage(const CLI::App& app, const std::string& problem) {
  std::string path = "athanor";
  for (const CLI::App* level = &app; !level->get_subcommands().empty();) {
    level = level->get_subcommands().front();  // of the command line, as far as it was read
    absl::StrAppend(&path, " ", level->get_name());
  }
  return absl::StrCat(path, ": ", problem, " (", path, " --help)");
}

}  // namespace athanor

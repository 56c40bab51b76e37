#include <cstdlib>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/commands/command.h"

namespace athanor {
namespace {

// What may follow the words typed so far: sub-commands, options, or names of jobs where one is expected.
std::vector<std::string> Candidates(const CLI::App& root, CommandContext& context,
                                    const std::vector<std::string>& words) {
  const CLI::App* app = &root;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    for (const CLI::App* child : app->get_subcommands([](const CLI::App*) { return true; })) {
      if (child->get_name() == words[i]) {
        app = child;
        break;
      }
    }
  }
  const std::string last = words.empty() ? "" : words.back();
  std::vector<std::string> found;
  for (const CLI::App* child : app->get_subcommands([](const CLI::App*) { return true; })) {
    if (absl::StartsWith(child->get_name(), last)) found.push_back(child->get_name());
  }
  if (absl::StartsWith(last, "-")) {
    for (const CLI::App* level : {app, &root}) {
      for (const CLI::Option* option : level->get_options()) {
        for (const std::string& name : option->get_lnames()) {
          if (absl::StartsWith("--" + name, last)) found.push_back("--" + name);
        }
      }
    }
  } else if (found.empty() && app->get_option_no_throw("job") != nullptr) {
    context.timeout = absl::Seconds(1);
    auto client = context.Client();
    v1::ListJobsResponse jobs;
    if (client.ok() &&
        (*client)->Call((*client)->jobs(), &v1::JobService::Stub::ListJobs, v1::ListJobsRequest(), &jobs).ok()) {
      for (const v1::Job& job : jobs.jobs()) {
        if (absl::StartsWith(job.id(), last)) found.push_back(job.id());
      }
    }
  }
  return found;
}

constexpr char kBash[] = R"(_athanor() {
  local IFS=$'\n'
  COMPREPLY=($(athanor __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _athanor athanor
)";
constexpr char kZsh[] = R"(#compdef athanor
_athanor() {
  local -a found
  found=("${(@f)$(athanor __complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
  [[ -n "${found[1]}" ]] && compadd -a found || _files
}
compdef _athanor athanor
)";
constexpr char kFish[] =
    R"(complete -c athanor -f -a '(athanor __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
)";

}  // namespace

void AddCompletionCommands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("completion", "Print a shell's completion script")->require_subcommand(1);
  group->footer("Example:\n  source <(athanor completion bash)");
  group->add_subcommand("bash", "For bash")->callback([] { std::cout << kBash; });
  group->add_subcommand("zsh", "For zsh")->callback([] { std::cout << kZsh; });
  group->add_subcommand("fish", "For fish")->callback([] { std::cout << kFish; });
}

void PrintCompletions(const CLI::App& app, CommandContext& context, std::vector<std::string> words) {
  // The words are an unfinished command line, which no parser would take: only where to ask for names is read from it.
  if (const char* server = std::getenv("ATHANOR_SERVER"); server != nullptr) context.server = server;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "--server" || words[i] == "-s") context.server = words[i + 1];
  }
  for (const std::string& one : Candidates(app, context, words)) std::cout << one << "\n";
}

}  // namespace athanor

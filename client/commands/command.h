// What every command has at hand, and how errors become exit codes.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/coordinator_client.h"
#include "client/exit_codes.h"
#include "client/output.h"

namespace athanor {

struct CommandContext {
  std::string server, context, config_file, output = "table";
  ChannelOptions channel;
  absl::Duration timeout = absl::Seconds(30);
  bool timeout_given = false, no_color = false, quiet = false;
  int exit_code = kOk;

  OutputFormat format() const;
  absl::StatusOr<CoordinatorClient*> Client();  // connects at the first call
  // Prints the error and sets the exit code.
  void Report(const absl::Status& status);
  void Say(const std::string& text) const;  // to stderr, unless quiet

 private:
  std::unique_ptr<CoordinatorClient> client_;
};

// `checkpoint`: a step, a name, an alias or a tag.
absl::StatusOr<v1::Checkpoint> GetCheckpoint(CommandContext& context, const std::string& job,
                                             const std::string& checkpoint);

void AddJobCommands(CLI::App& app, CommandContext& context);
void AddCheckpointCommands(CLI::App& app, CommandContext& context);
void AddConvertCommands(CLI::App& checkpoint, CommandContext& context);  // checkpoint export, import
void AddClusterCommands(CLI::App& app, CommandContext& context);         // worker, status, version, config
void AddCompletionCommands(CLI::App& app);
// What is wrong with a command line that CLI11 refuses for a command or an option that it does not know, or for one
// that is missing: "athanor job: no command 'sumbit', did you mean 'submit'?". Empty when that is not it.
std::string ExplainUnknownWord(const CLI::App& app, const std::vector<std::string>& words);
// Anything else that CLI11 refuses: "athanor job submit: file is required (athanor job submit --help)".
std::string ExplainUsage(const CLI::App& app, const std::string& problem);
// What the completion scripts call: `athanor __complete WORD...`, one candidate a line.
inline constexpr char kCompletionVerb[] = "__complete";
void PrintCompletions(const CLI::App& app, CommandContext& context, std::vector<std::string> words);

}  // namespace athanor

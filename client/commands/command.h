// What every command has at hand, and how errors become exit codes.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/coordinator_client.h"
#include "client/output.h"

namespace athanor {

enum ExitCode : int {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kNotFound = 3,
  kConflict = 4,
  kUnreachable = 5,
  kJobFailed = 6,
  kJobCancelled = 7,
  kDetached = 130,
};
inline constexpr char kExitCodesHelp[] =
    "Exit codes: 0 ok, 1 failure, 2 usage or invalid job file, 3 not found,\n4 conflict, 5 unreachable or too late, 6 "
    "job failed, 7 job cancelled,\n130 detached by Ctrl-C "
    "(the job goes on).";

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

void AddJobCommands(CLI::App& app, CommandContext& context);
void AddCheckpointCommands(CLI::App& app, CommandContext& context);
void AddClusterCommands(CLI::App& app, CommandContext& context);  // worker, status, version, config
void AddCompletionCommands(CLI::App& app);
// What the completion scripts call: `athanor __complete WORD...`, one candidate a line.
inline constexpr char kCompletionVerb[] = "__complete";
void PrintCompletions(const CLI::App& app, CommandContext& context, std::vector<std::string> words);

}  // namespace athanor

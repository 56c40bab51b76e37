// athanor: the command line.
#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/version.h"
#include "client/commands/command.h"
#include "client/standard_streams.h"
#include "common/service/grpc_log.h"

namespace athanor {
namespace {

void AddGlobalOptions(CLI::App& app, CommandContext& context) {
  app.set_version_flag("--version", absl::StrCat("athanor ", Version(), " (", Commit(), ")"));
  app.add_option("-s,--server", context.server, "Coordinator, host:port [127.0.0.1:7070]")
      ->envname("ATHANOR_SERVER")
      ->take_last();
  app.add_option("--context", context.context, "Context of the configuration file")->envname("ATHANOR_CONTEXT");
  app.add_option("--config", context.config_file, "Configuration file [~/.config/athanor/config.yaml]")
      ->envname("ATHANOR_CLI_CONFIG");
  app.add_option("--token-file", context.channel.token_file, "File with the bearer token")
      ->envname("ATHANOR_TOKEN_FILE");
  app.add_option("--tls-ca", context.channel.tls.ca, "PEM file of the authority");
  app.add_option("--tls-certificate", context.channel.tls.certificate, "PEM file of the client's certificate");
  app.add_option("--tls-key", context.channel.tls.key, "PEM file of its key");
  app.add_option("-o,--output", context.output, "table, json or yaml")
      ->capture_default_str()
      ->check(CLI::IsMember({"table", "json", "yaml"}));
  app.add_option_function<std::string>(
      "--timeout",
      [&context](const std::string& text) {
        if (!absl::ParseDuration(text, &context.timeout) || context.timeout <= absl::ZeroDuration()) {
          throw CLI::ValidationError("--timeout", absl::StrCat("'", text, "' is no duration; write 200ms, 10s or 5m"));
        }
        context.timeout_given = true;
      },
      "Longest wait for an answer [30s]");
  app.add_flag("--no-color", context.no_color, "No colours (also NO_COLOR)");
  app.add_flag("-q,--quiet", context.quiet, "No messages but errors");
}

int Main(int argc, char** argv) {
  CommandContext context;
  CLI::App app{"athanor: submits, follows and steers training jobs."};
  app.require_subcommand(1);
  app.fallthrough();  // global options also behind the sub-commands
  AddGlobalOptions(app, context);
  AddJobCommands(app, context);
  AddCheckpointCommands(app, context);
  AddClusterCommands(app, context);
  AddCompletionCommands(app);
  app.footer(
      absl::StrCat("Examples:\n  athanor job submit examples/jobs/digits.yaml --watch\n  athanor job logs digits "
                   "--follow\n  athanor checkpoint list digits\n\n",
                   kExitCodesHelp));
  if (argc > 1 && std::string(argv[1]) == kCompletionVerb) {
    PrintCompletions(app, context, {argv + 2, argv + argc});
    return kOk;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error, std::cout, std::cerr);  // --help, --version
    const std::string unknown = ExplainUnknownWord(app, {argv + 1, argv + argc});
    std::cerr << (unknown.empty() ? ExplainUsage(app, error.what()) : unknown) << "\n";
    return kUsage;
  }
  return context.exit_code;
}

}  // namespace
}  // namespace athanor

int main(int argc, char** argv) {
  athanor::SetUpStandardStreams();
  athanor::SendGrpcLogToStderr("athanor");
  return athanor::FinishOutput(athanor::Main(argc, argv));
}

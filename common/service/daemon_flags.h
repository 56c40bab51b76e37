// What the daemons' command lines have in common: --config FILE in YAML with the flags' names as keys (unknown keys are
// refused with the nearest name), environment variables, durations, and the file in which chosen ports are announced.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace athanor {

// Adds --config and makes every option readable from the environment as PREFIX_OPTION_NAME.
void AddConfigFile(CLI::App& app, const std::string& environment_prefix);
// Call after all options were added: binds the environment names.
void BindEnvironment(CLI::App& app, const std::string& environment_prefix);
// "200ms", "10s", "5m"; must be positive.
CLI::Option* AddDuration(CLI::App& app, const std::string& name, absl::Duration& value, const std::string& help);
// Parses; on --help, --version and bad usage ends the process.
void ParseOrExit(CLI::App& app, int argc, char** argv);
// Says in one line what is wrong, and ends the process with 2.
[[noreturn]] void ExitUsage(const CLI::App& app, const CLI::ParseError& error);
// {"name": port, …}, written to a temporary file and renamed.
absl::Status WritePortsFile(const std::string& path, const std::map<std::string, int>& ports);

}  // namespace athanor

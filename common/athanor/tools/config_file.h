// The configuration of a run from a file and a command line.
//
//   int main(int argc, char** argv) {
//     const auto config = ReadRunConfig(argc, argv);       // ./train --config run.yaml --optim.lr 0.01 --epochs=3
//     if (!config.ok()) return Usage(config.status());     // "run.yaml: optim.lrr: unknown key, did you mean "lr"? …"
//     auto runner = TorchRunner::Create(*config, …);
//
// Arguments: `--config FILE` (.yaml, .yml, .json, also compressed; at most one), and `--a.b VALUE` or `--a.b=VALUE` for
// every option of docs/configuration.md; VALUE is read as a JSON literal, else taken as text. They are laid over the
// file, in their order; those of the program itself go first: `defaults`. Thread-safe.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/statusor.h"
#include "athanor/config/runner_config.h"

namespace athanor {

// INVALID_ARGUMENT names every mistake with its key, and the file where there is one; NOT_FOUND and DATA_LOSS name the
// file. CANCELLED for `--help`: its message is the text to print.
absl::StatusOr<RunnerConfig> ReadRunConfig(int argc, const char* const* argv, const nlohmann::json& defaults = {});
// The same from arguments without the program's name.
absl::StatusOr<RunnerConfig> ReadRunConfig(const std::vector<std::string>& arguments,
                                           const nlohmann::json& defaults = {});
// A file alone.
absl::StatusOr<RunnerConfig> ReadRunConfigFile(const std::string& path);

}  // namespace athanor

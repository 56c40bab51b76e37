// A job file (YAML or JSON) as a JobSpec; docs/cli.md describes the fields. All mistakes of a file are reported at
// once, each with file, line, column, field, what was found and what is allowed.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/v1/job.pb.h"

namespace athanor {

// `overrides`: "runner.optim.lr=0.1". `path` is for messages and as the base of relative paths in the file. Plain
// scalars of labels, env and parent are text as it is written, also in overrides: 3.10 stays "3.10".
absl::StatusOr<v1::JobSpec> ParseJobFile(const std::string& path, const std::string& text,
                                         const std::vector<std::string>& overrides);
// `path` "-" is standard input; its relative paths start at the working folder.
absl::StatusOr<v1::JobSpec> LoadJobFile(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace athanor

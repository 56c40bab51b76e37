// The folder of a run: where its checkpoints, results, logs and metadata lie. For programs without the service; under
// the service the job's folder takes this place.
//
//   <workspace_root>/<lineage>[-<code id>]/<id>/
//     metadata/config.full.yaml  config.full.json  config.canonical.yaml  config.diff.yaml  git.yaml  git.diff
//     checkpoints/   logs/<timestamp>.log   tensorboard/<timestamp>/   heartbeats/rank-00000.json
//     results.json  latest.json  best.json  summary.json
//
// `id` is the configuration's id (athanor/config/config_identity.h), with "<code id>-" in front inside a git checkout;
// the code id (git_checkout.h) tells the commit and what differs from it. Equal configurations of equal code share a
// folder, which is what makes `auto_resume` find its checkpoints. Plain values; functions are thread-safe.
#pragma once

#include <string>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/config/runner_config.h"
#include "athanor/runner/record/git_checkout.h"

namespace athanor {

struct Workspace {
  std::string dir;
  std::string id;
  std::string name;       // for people: config.name, else "<lineage>-<experiment>"
  std::string timestamp;  // of the start, UTC, sortable: "20261123-201500-123456"
  GitCheckout code;       // around the working folder

  std::string checkpoint_dir;  // absolute or under `dir`
  std::string log_path;        // config.log_file; "": by the time of the start
  std::string log_file() const { return log_path.empty() ? dir + "/logs/" + timestamp + ".log" : log_path; }
  std::string tensorboard_dir() const { return dir + "/tensorboard/" + timestamp; }
};

inline constexpr char kConfigFile[] = "metadata/config.full.json";  // in a run's folder

// Nothing is created. `code_folder`: one of the code that runs; "": there is none to tell of. INVALID_ARGUMENT when
// lineage or experiment would leave the root ("/", "..").
absl::StatusOr<Workspace> ResolveWorkspace(const RunnerConfig& config, absl::Time now,
                                           const std::string& code_folder = ".");

// Whether the configuration asks for something that lies in a run's folder: checkpoints, tables, events, traces,
// heartbeats, a log file, or the folder itself.
bool NeedsWorkspace(const RunnerConfig& config);

// Makes the folder and writes metadata/. One process of a run does it.
absl::Status WriteMetadata(const Workspace& workspace, const RunnerConfig& config);

// {"name", "id", "timestamp"}: stands at the head of result files.
nlohmann::json IdentityOf(const Workspace& workspace);

// `json` as YAML in block style, keys in order; strings are quoted where YAML would read something else.
std::string ToYaml(const nlohmann::json& json);

}  // namespace athanor

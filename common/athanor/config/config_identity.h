// What makes a run the run it is: the semantic part of its configuration, a short id of it, and the difference between
// two configurations, both ways, with a verdict on resuming.
//
//   nlohmann::json saved = ..., current = ...;           // as written in job files or code; keys of user code included
//   ConfigDifference difference = SemanticDifference(saved, current);
//   difference.changed;                                  // {"optim": {"lr": 0.2}}: new or other in `current`
//   difference.before;                                   // {"optim": {"lr": 0.1}}: gone or other since `saved`
//   if (!difference.ForbiddenPaths().empty()) ...        // then it is another run, not a resumed one
//
// Works on JSON mappings, not on RunnerConfig: whatever a user adds belongs to the identity too. Pure functions,
// thread-safe.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace athanor {

// The canonical stack of a selector: trimmed, lower case, '-' as '_'; "", "auto", "torch" and "ddp" are ddp, "ds" is
// deepspeed, "graph_runner" is graph. Others come back as they are, normalised: CheckStack() refuses them.
std::string CanonicalStack(absl::string_view stack);
absl::Status CheckStack(absl::string_view stack);  // INVALID_ARGUMENT lists the known ones

// The semantic part, defaults filled in. Left out: where the run is kept, named, logged, watched and profiled; how it
// communicates; how it chooses what is best and where it resumes from (score*, log*, tensorboard, wandb,
// workspace_root, lineage, experiment, comm, gc, profiling, heartbeat, ft, resume, auto_resume, pretrained). Of
// `checkpoint` only `backend` and keys that are not options count; `fsdp` and `parallel` count for stack parallel only.
nlohmann::json CanonicalConfig(const nlohmann::json& config);

// 12 hexadecimal digits of the canonical form. Equal for configurations without a semantic difference; 1 and 1.0 are
// equal, the order of keys does not matter. Stable across versions of this library for equal canonical forms.
std::string ConfigId(const nlohmann::json& config);

// Contradictions that make a configuration no run at all, whatever else it holds: INVALID_ARGUMENT.
absl::Status CheckBoundaries(const nlohmann::json& config);

struct ConfigDifference {
  // Nested as the configuration; lists are compared whole, null is a value.
  nlohmann::json changed = nlohmann::json::object();
  nlohmann::json before = nlohmann::json::object();

  bool empty() const { return changed.empty() && before.empty(); }
  // The dotted paths that differ in either direction, sorted.
  std::vector<std::string> Paths() const;
  // Those of them that forbid a resume: all but the ones that MayChangeOnResume() (config_loader.h).
  std::vector<std::string> ForbiddenPaths() const;
};

ConfigDifference SemanticDifference(const nlohmann::json& saved, const nlohmann::json& current);

}  // namespace athanor

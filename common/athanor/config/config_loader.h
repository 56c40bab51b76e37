// From JSON to RunnerConfig and back, with every mistake named; what may change between a checkpoint and its resume.
//
//   nlohmann::json json = ...;                                     // the job file's `runner`
//   RETURN_IF_ERROR(ApplyOverride(json, "optim.lr", "0.1"));       // --set runner.optim.lr=0.1
//   RunnerConfig config;
//   for (const FieldProblem& problem : CheckRunnerConfig(json, &config)) ...
//
// Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "athanor/config/reflection.h"
#include "athanor/config/runner_config.h"

namespace athanor {

// All mistakes, in the order of the file: wrong types, values out of range, unknown keys (with the nearest known one),
// options that the chosen optimizer or schedule does not have, contradictions. Empty: *out is complete and usable.
// `out` may be null.
std::vector<FieldProblem> CheckRunnerConfig(const nlohmann::json& json, RunnerConfig* out);

// What `json` says, in one form: known spellings, numbers of the option's type, and no key that it does not name.
// `config` is what CheckRunnerConfig() made of it. Made once, where a job comes in; everybody behind it reads this.
nlohmann::json CanonicalRunner(const nlohmann::json& json, const RunnerConfig& config);

// The same check for a config made in code: contradictions and values out of range.
std::vector<FieldProblem> CheckRunnerConfig(const RunnerConfig& config);

// "optim.lr: found -1 (integer); allowed: number >= 0" lines joined by "; ". OK when there are no problems, else
// INVALID_ARGUMENT.
absl::Status ToStatus(const std::vector<FieldProblem>& problems);

// Complete and canonical: every key, sorted; unset = null. CheckRunnerConfig reads it back to an equal config.
nlohmann::json ToJson(const RunnerConfig& config);

// What stands against continuing a run saved under `saved` (ToJson() of then) as `current`: one line per key whose
// value differs in either direction, "optim.lr: saved 0.1, now 0.2". Defaults are filled in on both sides, numbers
// compare by value. Keys that do not change what is computed from here on in an unwanted way may differ:
// MayChangeOnResume(). Keys of `saved` that this version does not know are reported.
std::vector<std::string> ResumeDifferences(const nlohmann::json& saved, const RunnerConfig& current);
// True for log_interval, evaluate, checkpoint, steps, epochs, patience, score, comm, threads, max_nonfinite_losses, all
// that says where the run is kept, watched and started from (workspace_root … pretrained), compile, and the loader's
// num_workers, prefetch_factor, in_order, pin_memory, timeout, persistent_workers, snapshot_every_n_steps (also per
// split), with everything below them.
bool MayChangeOnResume(absl::string_view path);

// Sets json[a][b][c] for the path "a.b.c" (list elements by number: "optim.param_groups.0.lr"), making mappings on the
// way. The text is read as a JSON literal (0.1, true, null, [1, 2]), else taken as a string. INVALID_ARGUMENT for an
// empty part, more than 100 parts, text that is not UTF-8, a way through something that is neither mapping nor list, or
// a list index beyond the end; `json` is as it was then.
absl::Status ApplyOverride(nlohmann::json& json, absl::string_view path, absl::string_view text);

// docs/configuration.md, whole.
std::string ConfigurationMarkdown();

}  // namespace athanor

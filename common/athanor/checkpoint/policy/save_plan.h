// Whether a save is made, and under which names. Pure.
//
// Names of a checkpoint (aliases): "latest", the history name of an epoch or step on the interval, "best", and what the
// caller says. The folder is that of its step; two names may mean one folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace athanor {

struct SaveArguments {
  std::string name = "latest";
  bool save_best = true;          // the name "best" too, when the latest score is the best one
  bool last_step = false;         // the end of the run: saved whatever the interval says
  bool force = false;             // asked for: saved whatever the interval says
  bool history = true;            // takes a history name when it is on the interval; a seed checkpoint does not
  std::optional<int64_t> epochs;  // passes completed, where the caller counts them itself; default: the run's
};

struct SaveRules {
  bool by_epoch = true;     // the run is counted in epochs, else in steps
  int64_t interval = 1;     // epochs or steps; 0: none
  bool load_only = false;   // never save
  bool model_only = false;  // checkpoint.last_save_model_only
};

struct SavePlan {
  bool save = false;
  bool model_only = false;
  std::vector<std::string> aliases;  // each once: the name, the history name, "best"
  std::string reason;                // "on the interval", "forced", "last step", "best", "load only", "not due"
};

// `epochs`: passes completed; `step`: updates made; `is_best`: the latest score is the best.
SavePlan PlanSave(const SaveRules& rules, const SaveArguments& arguments, int64_t epochs, int64_t step, bool is_best);

std::string EpochName(int64_t epochs);  // "ckpt-e000003": after 3 passes
std::string StepName(int64_t step);     // "ckpt-s000000000120"
bool IsHistoryName(const std::string& alias);

}  // namespace athanor

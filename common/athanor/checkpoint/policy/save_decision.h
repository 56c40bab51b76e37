// Whether a save is made, how, and under which names: one decision, with its reason. Pure.
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
  bool must_wait = false;         // for room, instead of skipping this one (final and stop checkpoints)
};

// What stays the same over a run.
struct SaveRules {
  bool by_epoch = true;     // the run is counted in epochs, else in steps
  int64_t interval = 1;     // epochs or steps; 0: none
  bool load_only = false;   // never save
  bool model_only = false;  // checkpoint.last_save_model_only
  bool enabled = true;      // there is a folder for checkpoints
  bool immutable = false;   // a committed step keeps its files: the coordinator's rule
};

// The state to be saved, and what was saved before it.
struct SaveSituation {
  int64_t epochs = 0, step = 0;   // passes completed, updates made
  double epoch_fraction = 0;      // of the pass under way that is done
  bool is_best = false;           // the latest score is the best
  bool finite = true;             // the latest loss; else the weights are no place to come back to
  int64_t saved_step = -1;        // of the newest save started or restored from; -1: none
  bool saved_model_only = false;  // that save is of the model alone
};

struct SaveDecision {
  enum class Action {
    kNone,
    kName,  // the step is saved: it gets the names. Should that save have failed, it is made anew.
    kSave,
  };
  enum class Room {
    kNow,   // skipped when the writer is busy
    kSoon,  // a best one is worth the end of a write
    kWait,  // whatever it takes
  };
  Action action = Action::kNone;
  bool model_only = false;
  Room room = Room::kNow;
  std::vector<std::string> aliases;  // each once: the name, the history name, "best"
  std::string reason;                // "on the interval", "forced", "last step", "best", "not due", "load only" …

  bool save() const { return action != Action::kNone; }
};

SaveDecision DecideSave(const SaveRules& rules, const SaveArguments& arguments, const SaveSituation& situation);

// Whether the cadence asks for a checkpoint after this update; by epochs only where a pass has ended.
bool IsDue(const SaveRules& rules, int64_t epochs, int64_t step, bool epoch_ended, int64_t saved_step);

// False if the last save is of the model alone, which nothing resumes from, and committed files are immutable.
bool CanSaveBeforeLastEvaluation(const SaveRules& rules);

std::string EpochName(int64_t epochs);  // "ckpt-e000003": after 3 passes
std::string StepName(int64_t step);     // "ckpt-s000000000120"
bool IsHistoryName(const std::string& alias);

}  // namespace athanor

// What a run tells people: one verb, and where each kind of note goes.
//
//   notes.Tell(Note::kFact, "resumed from step 120 of /runs/a");       // log, hooks
//   notes.Tell(Note::kProblem, "checkpoint of step 120 is damaged");   // log, RunResult::notes
//
// Not thread-safe; the training thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace athanor {

class RunnerHooks;
class RunProgress;
class RunRecorder;

enum class Note {
  kFact,     // people look for it: a line of the log, and RunnerHooks::OnNote(); main process
  kEvent,    // a fact that stays with the run: ProgressReport::events too
  kRemark,   // worth a warning in the log, and no more
  kProblem,  // worth a warning in the log, and in RunResult::notes
};

class RunNotes {
 public:
  // `hooks` may be null. They and `progress` outlive the notes.
  RunNotes(RunProgress* progress, RunnerHooks* hooks, bool is_main)
      : progress_(progress), hooks_(hooks), is_main_(is_main) {}

  void Tell(Note kind, std::string text);
  // From here on into this recorder's log as well, and first of all what was told before. Null: into none.
  void WriteTo(RunRecorder* recorder);
  // Those of kProblem, oldest first.
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  void Log(Note kind, const std::string& text) const;

  RunProgress* const progress_;
  RunnerHooks* const hooks_;
  const bool is_main_;
  RunRecorder* recorder_ = nullptr;
  std::vector<std::pair<Note, std::string>> early_;  // told before there was a log
  std::vector<std::string> problems_;
};

}  // namespace athanor

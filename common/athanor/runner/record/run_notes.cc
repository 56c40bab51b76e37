#include "athanor/runner/record/run_notes.h"

#include "athanor/runner/record/run_progress.h"
#include "athanor/runner/record/run_recorder.h"
#include "athanor/runner/runner_hooks.h"

namespace athanor {

void RunNotes::Tell(Note kind, std::string text) {
  const bool fact = kind == Note::kFact || kind == Note::kEvent;
  if (fact && !is_main_) return;
  if (fact && hooks_ != nullptr) hooks_->OnNote(text);
  if (kind == Note::kEvent) progress_->AddEvent(text);
  if (kind == Note::kProblem) problems_.push_back(text);
  if (recorder_ != nullptr) return Log(kind, text);
  early_.emplace_back(kind, std::move(text));
}

void RunNotes::WriteTo(RunRecorder* recorder) {
  recorder_ = recorder;
  if (recorder == nullptr) return;
  for (const auto& [kind, text] : std::exchange(early_, {})) Log(kind, text);
}

void RunNotes::Log(Note kind, const std::string& text) const {
  recorder_->Note(kind == Note::kFact || kind == Note::kEvent ? "INFO" : "WARNING", text);
}

}  // namespace athanor

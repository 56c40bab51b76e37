#include "server/observability/event_log.h"

#include "absl/strings/str_cat.h"
#include "common/service/logging_setup.h"

namespace athanor {
namespace {

std::string NumberOrNothing(int32_t value, int32_t nothing) {
  return value == nothing ? "" : absl::StrCat(value);
}

}  // namespace

void LogJobEvent(const core::JobEventEntry& event) {
  const bool bad = event.type == "RankFailed" || event.type == "Failed" || event.type == "CheckpointDamaged" ||
                   event.type == "CheckpointFailed" || event.type == "WorkerQuarantined";
  const bool wrong = event.type == "InternalError";
  Log(wrong ? spdlog::level::err
      : bad ? spdlog::level::warn
            : spdlog::level::info,
      event.type,
      {{"job", event.job.str()},
       {"generation", NumberOrNothing(event.generation, 0)},
       {"rank", NumberOrNothing(event.rank, -1)}},
      event.message);
}

void LogNote(const core::Note& note) {
  using Kind = core::Note::Kind;
  if (note.kind == Kind::kLeaseExpired) {
    Log(spdlog::level::warn, "LeaseExpired", {{"worker", note.worker.str()}},
        "no heartbeat: the agent is declared lost");
  } else if (note.kind == Kind::kInternalError) {
    Log(spdlog::level::err, "InternalError", {{"worker", note.worker.str()}}, note.message);
  } else if (note.kind == Kind::kQuarantine) {
    Log(spdlog::level::warn, "Quarantined", {{"worker", note.worker.str()}}, note.message);
  } else if (note.kind == Kind::kFencedMessage) {
    Log(spdlog::level::info, "Fenced",
        {{"job", note.job.str()},
         {"generation", NumberOrNothing(note.generation, 0)},
         {"rank", NumberOrNothing(note.rank, -1)},
         {"worker", note.worker.str()},
         {"kind", note.label}},
        note.message);
  }
}

}  // namespace athanor

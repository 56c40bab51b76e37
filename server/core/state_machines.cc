#include "server/core/state_machines.h"

#include "absl/strings/str_cat.h"

namespace athanor::core {
namespace {

template <typename Table>
std::string Section(const char* title, const char* what, const Table& table) {
  std::string text = absl::StrCat("\n## ", title, "\n\n", what, "\n\n| from | trigger | to |\n|---|---|---|\n");
  for (const auto& row : table) {
    absl::StrAppend(&text, "| ", ToString(row.from), " | ", ToString(row.trigger), " | ", ToString(row.to), " |\n");
  }
  return text;
}

}  // namespace

const char* ToString(JobState state) {
  constexpr const char* kNames[] = {"?",         "Queued",     "Running",   "BackingOff", "Suspending",
                                    "Suspended", "Cancelling", "Succeeded", "Failed",     "Cancelled"};
  return kNames[static_cast<int>(state)];
}

const char* ToString(GenerationState state) {
  constexpr const char* kNames[] = {"?",         "Launching", "Joining",   "Training", "Stopping",
                                    "Completed", "Failed",    "Cancelled", "Preempted"};
  return kNames[static_cast<int>(state)];
}

const char* ToString(WorkerState state) {
  constexpr const char* kNames[] = {"?", "Ready", "Suspect", "Lost", "Draining", "Drained", "Quarantined"};
  return kNames[static_cast<int>(state)];
}

const char* ToString(CheckpointState state) {
  constexpr const char* kNames[] = {"?", "Collecting", "Sealed", "Committed", "Abandoned", "Deleting", "Damaged"};
  return kNames[static_cast<int>(state)];
}

const char* ToString(JobTrigger trigger) {
  constexpr const char* kNames[] = {"placed",
                                    "generation completed",
                                    "generation failed, policy = retry",
                                    "generation failed, policy = give up",
                                    "generation preempted",
                                    "retry time reached",
                                    "cancel",
                                    "suspend",
                                    "resume",
                                    "generation ended"};
  return kNames[static_cast<int>(trigger)];
}

const char* ToString(GenerationTrigger trigger) {
  constexpr const char* kNames[] = {"all ranks started",
                                    "all ranks joined",
                                    "first failure, cancel, suspend, preempt or deadline",
                                    "all ranks finished",
                                    "all slots released after a failure",
                                    "all slots released after a cancel",
                                    "all slots released after suspend, drain or preemption"};
  return kNames[static_cast<int>(trigger)];
}

const char* ToString(WorkerTrigger trigger) {
  constexpr const char* kNames[] = {"registered",     "half a lease without a heartbeat",
                                    "heartbeat",      "lease over",
                                    "drain",          "undrain",
                                    "no rank left",   "launches fail",
                                    "quarantine over"};
  return kNames[static_cast<int>(trigger)];
}

const char* ToString(CheckpointTrigger trigger) {
  constexpr const char* kNames[] = {"all shards durable",  "manifest durable",
                                    "generation ended",    "a rank gave up",
                                    "retention or delete", "a restore found damage, or set aside by request"};
  return kNames[static_cast<int>(trigger)];
}

std::string StateMachinesMarkdown() {
  return absl::StrCat(
      "# State machines\n\nPrinted from the tables in `server/core/state_machines.h`; a test compares. A pair that is "
      "not listed is an "
      "error of ours,\nnever a silent no-op; duplicates and late messages are dropped before they reach a table.\n",
      Section("Job", "`Succeeded`, `Failed` and `Cancelled` are final.", kJobTable),
      Section("Generation",
              "One membership of a job. The first cause wins; slots are released when every agent reported the exits.",
              kGenerationTable),
      Section("Worker", "An agent. Only a Ready worker gets new ranks: its heartbeat proves that each hears the other.",
              kWorkerTable),
      Section(
          "Checkpoint",
          "Aliases and tags point at `Committed` ones only. After `Deleting` the record goes when the files are gone.",
          kCheckpointTable));
}

}  // namespace athanor::core

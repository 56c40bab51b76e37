// The four life cycles. docs/state-machines.md is printed from these tables, so picture and code cannot drift.
#pragma once

#include <array>
#include <string>

#include "server/core/cluster_state.h"
#include "server/core/transition_table.h"

namespace athanor::core {

enum class JobTrigger : uint8_t {
  kPlaced,
  kFinished,
  kFailedRetry,
  kFailedFinal,
  kPreempted,
  kRetryTimeReached,
  kCancel,
  kSuspend,
  kResume,
  kStopped,
};
using JobRow = TransitionRow<JobState, JobTrigger>;
inline constexpr std::array kJobTable = {
    JobRow{JobState::kQueued, JobTrigger::kPlaced, JobState::kRunning},
    JobRow{JobState::kQueued, JobTrigger::kCancel, JobState::kCancelled},
    JobRow{JobState::kQueued, JobTrigger::kSuspend, JobState::kSuspended},
    JobRow{JobState::kRunning, JobTrigger::kFinished, JobState::kSucceeded},
    JobRow{JobState::kRunning, JobTrigger::kFailedRetry, JobState::kBackingOff},
    JobRow{JobState::kRunning, JobTrigger::kFailedFinal, JobState::kFailed},
    JobRow{JobState::kRunning, JobTrigger::kPreempted, JobState::kQueued},
    JobRow{JobState::kRunning, JobTrigger::kCancel, JobState::kCancelling},
    JobRow{JobState::kRunning, JobTrigger::kSuspend, JobState::kSuspending},
    JobRow{JobState::kBackingOff, JobTrigger::kRetryTimeReached, JobState::kQueued},
    JobRow{JobState::kBackingOff, JobTrigger::kCancel, JobState::kCancelled},
    JobRow{JobState::kBackingOff, JobTrigger::kSuspend, JobState::kSuspended},
    JobRow{JobState::kSuspending, JobTrigger::kStopped, JobState::kSuspended},
    JobRow{JobState::kSuspending, JobTrigger::kFinished, JobState::kSucceeded},
    JobRow{JobState::kSuspending, JobTrigger::kCancel, JobState::kCancelling},
    JobRow{JobState::kSuspended, JobTrigger::kResume, JobState::kQueued},
    JobRow{JobState::kSuspended, JobTrigger::kCancel, JobState::kCancelled},
    JobRow{JobState::kCancelling, JobTrigger::kStopped, JobState::kCancelled},
    JobRow{JobState::kCancelling, JobTrigger::kFinished, JobState::kSucceeded},
};
static_assert(Deterministic(kJobTable));
static_assert(Terminal(kJobTable, JobState::kSucceeded));
static_assert(Terminal(kJobTable, JobState::kFailed));
static_assert(Terminal(kJobTable, JobState::kCancelled));
static_assert(!Terminal(kJobTable, JobState::kCancelling));
static_assert(!Terminal(kJobTable, JobState::kSuspending));

enum class GenerationTrigger : uint8_t {
  kAllStarted,
  kAllJoined,
  kStop,
  kAllFinished,
  kGoneFailed,
  kGoneCancelled,
  kGonePreempted
};
using GenerationRow = TransitionRow<GenerationState, GenerationTrigger>;
inline constexpr std::array kGenerationTable = {
    GenerationRow{GenerationState::kLaunching, GenerationTrigger::kAllStarted, GenerationState::kJoining},
    GenerationRow{GenerationState::kLaunching, GenerationTrigger::kAllJoined, GenerationState::kTraining},
    GenerationRow{GenerationState::kLaunching, GenerationTrigger::kStop, GenerationState::kStopping},
    GenerationRow{GenerationState::kJoining, GenerationTrigger::kAllJoined, GenerationState::kTraining},
    GenerationRow{GenerationState::kJoining, GenerationTrigger::kStop, GenerationState::kStopping},
    GenerationRow{GenerationState::kTraining, GenerationTrigger::kStop, GenerationState::kStopping},
    GenerationRow{GenerationState::kTraining, GenerationTrigger::kAllFinished, GenerationState::kCompleted},
    GenerationRow{GenerationState::kStopping, GenerationTrigger::kAllFinished, GenerationState::kCompleted},
    GenerationRow{GenerationState::kStopping, GenerationTrigger::kGoneFailed, GenerationState::kFailed},
    GenerationRow{GenerationState::kStopping, GenerationTrigger::kGoneCancelled, GenerationState::kCancelled},
    GenerationRow{GenerationState::kStopping, GenerationTrigger::kGonePreempted, GenerationState::kPreempted},
};
static_assert(Deterministic(kGenerationTable));
static_assert(Terminal(kGenerationTable, GenerationState::kCompleted));
static_assert(Terminal(kGenerationTable, GenerationState::kFailed));
static_assert(!Terminal(kGenerationTable, GenerationState::kStopping));

enum class WorkerTrigger : uint8_t {
  kRegistered,
  kHalfLease,
  kHeartbeat,
  kLeaseOver,
  kDrain,
  kUndrain,
  kEmpty,
  kLaunchesFail,
  kQuarantineOver
};
using WorkerRow = TransitionRow<WorkerState, WorkerTrigger>;
inline constexpr std::array kWorkerTable = {
    WorkerRow{WorkerState::kReady, WorkerTrigger::kHalfLease, WorkerState::kSuspect},
    WorkerRow{WorkerState::kReady, WorkerTrigger::kLeaseOver, WorkerState::kLost},
    WorkerRow{WorkerState::kReady, WorkerTrigger::kDrain, WorkerState::kDraining},
    WorkerRow{WorkerState::kReady, WorkerTrigger::kLaunchesFail, WorkerState::kQuarantined},
    WorkerRow{WorkerState::kSuspect, WorkerTrigger::kHeartbeat, WorkerState::kReady},
    WorkerRow{WorkerState::kSuspect, WorkerTrigger::kLeaseOver, WorkerState::kLost},
    WorkerRow{WorkerState::kSuspect, WorkerTrigger::kDrain, WorkerState::kDraining},
    WorkerRow{WorkerState::kSuspect, WorkerTrigger::kLaunchesFail, WorkerState::kQuarantined},
    WorkerRow{WorkerState::kReady, WorkerTrigger::kRegistered, WorkerState::kSuspect},
    WorkerRow{WorkerState::kSuspect, WorkerTrigger::kRegistered, WorkerState::kSuspect},
    WorkerRow{WorkerState::kLost, WorkerTrigger::kRegistered, WorkerState::kSuspect},
    WorkerRow{WorkerState::kDraining, WorkerTrigger::kRegistered, WorkerState::kSuspect},
    WorkerRow{WorkerState::kDrained, WorkerTrigger::kRegistered, WorkerState::kSuspect},
    WorkerRow{WorkerState::kQuarantined, WorkerTrigger::kRegistered, WorkerState::kSuspect},
    WorkerRow{WorkerState::kDraining, WorkerTrigger::kEmpty, WorkerState::kDrained},
    WorkerRow{WorkerState::kDraining, WorkerTrigger::kUndrain, WorkerState::kReady},
    WorkerRow{WorkerState::kDraining, WorkerTrigger::kLeaseOver, WorkerState::kLost},
    WorkerRow{WorkerState::kDrained, WorkerTrigger::kUndrain, WorkerState::kReady},
    WorkerRow{WorkerState::kDrained, WorkerTrigger::kLeaseOver, WorkerState::kLost},
    WorkerRow{WorkerState::kQuarantined, WorkerTrigger::kQuarantineOver, WorkerState::kReady},
    WorkerRow{WorkerState::kQuarantined, WorkerTrigger::kUndrain, WorkerState::kReady},
    WorkerRow{WorkerState::kQuarantined, WorkerTrigger::kDrain, WorkerState::kDraining},
    WorkerRow{WorkerState::kQuarantined, WorkerTrigger::kLeaseOver, WorkerState::kLost},
};
static_assert(Deterministic(kWorkerTable));
static_assert(!Terminal(kWorkerTable, WorkerState::kLost));

enum class CheckpointTrigger : uint8_t { kAllShards, kManifest, kGenerationOver, kGivenUp, kRetire, kDamage };
using CheckpointRow = TransitionRow<CheckpointState, CheckpointTrigger>;
inline constexpr std::array kCheckpointTable = {
    CheckpointRow{CheckpointState::kCollecting, CheckpointTrigger::kAllShards, CheckpointState::kSealed},
    CheckpointRow{CheckpointState::kCollecting, CheckpointTrigger::kGenerationOver, CheckpointState::kAbandoned},
    CheckpointRow{CheckpointState::kCollecting, CheckpointTrigger::kGivenUp, CheckpointState::kAbandoned},
    CheckpointRow{CheckpointState::kSealed, CheckpointTrigger::kManifest, CheckpointState::kCommitted},
    CheckpointRow{CheckpointState::kSealed, CheckpointTrigger::kGenerationOver, CheckpointState::kAbandoned},
    CheckpointRow{CheckpointState::kSealed, CheckpointTrigger::kGivenUp, CheckpointState::kAbandoned},
    CheckpointRow{CheckpointState::kCommitted, CheckpointTrigger::kRetire, CheckpointState::kDeleting},
    CheckpointRow{CheckpointState::kCommitted, CheckpointTrigger::kDamage, CheckpointState::kDamaged},
    CheckpointRow{CheckpointState::kAbandoned, CheckpointTrigger::kRetire, CheckpointState::kDeleting},
    CheckpointRow{CheckpointState::kDamaged, CheckpointTrigger::kRetire, CheckpointState::kDeleting},
};
static_assert(Deterministic(kCheckpointTable));
static_assert(!Terminal(kCheckpointTable, CheckpointState::kAbandoned));

const char* ToString(JobTrigger trigger);
const char* ToString(GenerationTrigger trigger);
const char* ToString(WorkerTrigger trigger);
const char* ToString(CheckpointTrigger trigger);

// "no transition from Queued by 'retry time reached'": an error of ours, told as an event, never silent.
template <typename State, typename Trigger>
std::string Impossible(State state, Trigger trigger) {
  return std::string("no transition from ") + ToString(state) + " by '" + ToString(trigger) + "'";
}

// The text of docs/state-machines.md.
std::string StateMachinesMarkdown();

}  // namespace athanor::core

// The tables themselves, and docs/state-machines.md, which is printed from them.
#include "server/core/state_machines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "server/core/coordinator_core.h"

namespace athanor::core {
namespace {

using testing::HasSubstr;

// States that can be reached from `start`.
template <typename Table, typename State>
std::set<State> Reachable(const Table& table, State start) {
  std::set<State> reached = {start};
  for (size_t before = 0; before != reached.size();) {
    before = reached.size();
    for (const auto& row : table) {
      if (reached.contains(row.from)) reached.insert(row.to);
    }
  }
  return reached;
}

template <typename Table>
void ExpectDeterministic(const Table& table) {
  EXPECT_TRUE(Deterministic(table));
  for (const auto& row : table) EXPECT_EQ(Next(table, row.from, row.trigger), row.to);
}

TEST(StateMachines, EveryPairLeadsToOneState) {
  ExpectDeterministic(kJobTable);
  ExpectDeterministic(kGenerationTable);
  ExpectDeterministic(kWorkerTable);
  ExpectDeterministic(kCheckpointTable);
}

TEST(StateMachines, ADoubledPairIsFound) {
  constexpr std::array doubled = {JobRow{JobState::kQueued, JobTrigger::kCancel, JobState::kCancelled},
                                  JobRow{JobState::kQueued, JobTrigger::kCancel, JobState::kFailed}};
  EXPECT_FALSE(Deterministic(doubled));
}

TEST(StateMachines, EveryStateIsReached) {
  EXPECT_EQ(Reachable(kJobTable, JobState::kQueued).size(), 9u);
  EXPECT_EQ(Reachable(kGenerationTable, GenerationState::kLaunching).size(), 8u);
  EXPECT_EQ(Reachable(kWorkerTable, WorkerState::kReady).size(), 6u);
  EXPECT_EQ(Reachable(kCheckpointTable, CheckpointState::kCollecting).size(), 6u);
}

TEST(StateMachines, OnlyFinalStatesAreTerminal) {
  for (int i = 1; i <= static_cast<int>(JobState::kCancelled); ++i) {
    const auto state = static_cast<JobState>(i);
    EXPECT_EQ(Terminal(kJobTable, state), IsFinal(state)) << ToString(state);
  }
  for (int i = 1; i <= static_cast<int>(GenerationState::kPreempted); ++i) {
    const auto state = static_cast<GenerationState>(i);
    EXPECT_EQ(Terminal(kGenerationTable, state), !IsLive(state)) << ToString(state);
  }
  for (int i = 1; i <= static_cast<int>(WorkerState::kQuarantined); ++i) {
    EXPECT_FALSE(Terminal(kWorkerTable, static_cast<WorkerState>(i))) << "a worker can always come back";
  }
  EXPECT_TRUE(Terminal(kCheckpointTable, CheckpointState::kDeleting));
  EXPECT_FALSE(Terminal(kCheckpointTable, CheckpointState::kCommitted));
}

// Every job can still end, whatever happened to it; a cancelled one never runs again.
TEST(StateMachines, EveryJobCanEnd) {
  for (int i = 1; i <= static_cast<int>(JobState::kCancelled); ++i) {
    const auto state = static_cast<JobState>(i);
    const std::set<JobState> reached = Reachable(kJobTable, state);
    EXPECT_TRUE(reached.contains(JobState::kCancelled) || IsFinal(state)) << ToString(state);
  }
  EXPECT_FALSE(Reachable(kJobTable, JobState::kCancelling).contains(JobState::kRunning));
  EXPECT_FALSE(Reachable(kGenerationTable, GenerationState::kStopping).contains(GenerationState::kTraining));
}

// A checkpoint that was given up or found damaged is never offered again.
TEST(StateMachines, OnlyVotesLeadToACommit) {
  for (const CheckpointState lost :
       {CheckpointState::kAbandoned, CheckpointState::kDamaged, CheckpointState::kDeleting})
    EXPECT_FALSE(Reachable(kCheckpointTable, lost).contains(CheckpointState::kCommitted)) << ToString(lost);
  for (const auto& row : kCheckpointTable) {
    const bool commits = row.to == CheckpointState::kCommitted;
    EXPECT_TRUE(!commits || row.from == CheckpointState::kSealed) << ToString(row.from);
  }
}

TEST(StateMachines, UnlistedPairsLeadNowhere) {
  EXPECT_EQ(Next(kJobTable, JobState::kSucceeded, JobTrigger::kCancel), std::nullopt);
  EXPECT_EQ(Next(kJobTable, JobState::kQueued, JobTrigger::kFinished), std::nullopt);
  EXPECT_EQ(Next(kGenerationTable, GenerationState::kJoining, GenerationTrigger::kAllFinished), std::nullopt);
  EXPECT_EQ(Next(kWorkerTable, WorkerState::kLost, WorkerTrigger::kHeartbeat), std::nullopt);
  EXPECT_EQ(Next(kCheckpointTable, CheckpointState::kCommitted, CheckpointTrigger::kGenerationOver), std::nullopt);
}

TEST(StateMachines, TheDocumentIsCurrent) {
  const std::string path = ATHANOR_SOURCE_DIR "/docs/state-machines.md";
  const std::string expected = StateMachinesMarkdown();
  EXPECT_THAT(expected, HasSubstr("| Suspended | resume | Queued |"));
  if (std::getenv("ATHANOR_UPDATE_DOCS") != nullptr) {
    std::ofstream(path) << expected;
    return;
  }
  std::ostringstream found;
  found << std::ifstream(path).rdbuf();
  EXPECT_EQ(found.str(), expected) << path
                                   << " is not what the tables say; write it anew with\n  ATHANOR_UPDATE_DOCS=1 "
                                   << "server_core_test --gtest_filter=StateMachines.TheDocumentIsCurrent";
}

}  // namespace
}  // namespace athanor::core

// The seeded simulator over many seeds; even ones have membership faults. ATHANOR_SIM_SEEDS (1000) and
// ATHANOR_SIM_FIRST_SEED (1) choose them; ATHANOR_SIM_TRACE=1 prints what happens. A failing seed prints the command
// that replays it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "absl/strings/numbers.h"
#include "tests/sim/simulator.h"

namespace athanor::sim {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

void PrintTail(const SimResult& result, size_t lines) {
  const size_t first = result.trace.size() > lines ? result.trace.size() - lines : 0;
  for (size_t i = first; i < result.trace.size(); ++i) std::cerr << result.trace[i] << "\n";
}

TEST(Simulation, HoldsUnderFaults) {
  const uint64_t first = FromEnvironment("ATHANOR_SIM_FIRST_SEED", 1);
  const uint64_t count = FromEnvironment("ATHANOR_SIM_SEEDS", 1000);
  const bool trace = FromEnvironment("ATHANOR_SIM_TRACE", 0) != 0;
  constexpr int kShown = 3;
  int failures = 0;
  SimResult sum;
  for (uint64_t seed = first; seed < first + count && failures < kShown; ++seed) {
    const bool membership = seed % 2 == 0;
    SimResult result = Simulate({.seed = seed, .trace = trace, .membership_faults = membership});
    sum.steps += result.steps;
    sum.jobs += result.jobs;
    sum.succeeded += result.succeeded;
    sum.generations += result.generations;
    sum.coordinator_lives += result.coordinator_lives;
    if (trace) PrintTail(result, result.trace.size());
    if (result.failure.empty()) continue;
    ++failures;
    ADD_FAILURE() << "seed " << seed << ": " << result.failure << "\nreplay: ATHANOR_SIM_FIRST_SEED=" << seed
                  << " ATHANOR_SIM_SEEDS=1 ATHANOR_SIM_TRACE=1 sim_test --gtest_filter=Simulation.HoldsUnderFaults";
    if (!trace) PrintTail(Simulate({.seed = seed, .trace = true, .membership_faults = membership}), 60);
  }
  std::cout << sum.steps << " events, " << sum.jobs << " jobs (" << sum.succeeded << " succeeded), " << sum.generations
            << " generations, " << sum.coordinator_lives << " coordinator lives\n";
}

// Seeds that once found an error, by what it was.
TEST(Simulation, OldErrorsStayAway) {
  constexpr uint64_t kLaunchReportLost[] = {443, 767};         // a registration has to count as the report of a launch
  constexpr uint64_t kRetryDueAtStart[] = {1489, 2541, 3458};  // a retry came due while the coordinator was away
  // A damaged step that a child starts from was saved again, given up, and its files deleted.
  constexpr uint64_t kParentsStepGivenUp[] = {26790};
  // Ranks that were launched before their worker's quarantine joined during it, and it never ended.
  constexpr uint64_t kQuarantinedForEver[] = {337, 626};
  for (const uint64_t seed : kQuarantinedForEver) EXPECT_EQ(Simulate({.seed = seed}).failure, "") << "seed " << seed;
  for (const uint64_t seed : kParentsStepGivenUp) EXPECT_EQ(Simulate({.seed = seed}).failure, "") << "seed " << seed;
  for (const uint64_t seed : kLaunchReportLost) EXPECT_EQ(Simulate({.seed = seed}).failure, "") << "seed " << seed;
  for (const uint64_t seed : kRetryDueAtStart) EXPECT_EQ(Simulate({.seed = seed}).failure, "") << "seed " << seed;
}

// Without faults nothing is ever restarted for a cause of the service's own.
TEST(Simulation, FairWeather) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const SimResult result = Simulate({.seed = seed, .fault_rate = 0});
    EXPECT_EQ(result.failure, "") << "seed " << seed;
    EXPECT_EQ(result.coordinator_lives, 1);
  }
}

TEST(Simulation, RanksOutliveACoordinatorThatIsAwayForTenLeases) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const SimResult result =
        Simulate({.seed = seed, .fault_rate = 0, .membership_faults = true, .outage = absl::Seconds(100)});
    EXPECT_EQ(result.failure, "") << "seed " << seed;
    EXPECT_EQ(result.coordinator_lives, 2);
  }
}

TEST(Simulation, SameSeedSameRun) {
  const SimResult a = Simulate({.seed = 77, .trace = true});
  const SimResult b = Simulate({.seed = 77, .trace = true});
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.trace, b.trace);
}

}  // namespace
}  // namespace athanor::sim

// What the library reads, under seeded mutations of good inputs: replay.h. The address space is bounded, so that an
// input that asks for terabytes is noticed.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/torch.h>
#include <unistd.h>

#include <fstream>

#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/reader_seeds.h"
#include "tests/fuzz/reader_targets.h"
#include "tests/fuzz/replay.h"

namespace athanor::fuzz {
namespace {

void BoundAddressSpace() {
  if (kSanitized) return;  // sanitizers take terabytes of it for themselves
  constexpr uint64_t kMore = uint64_t{2} << 30;
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit limit = {};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + kMore);
  setrlimit(RLIMIT_AS, &limit);
}

class ReaderReplay : public testing::TestWithParam<NamedTarget> {};

TEST_P(ReaderReplay, SurvivesMutations) {
  at::set_num_threads(1);
  const std::vector<std::string> seeds = ReaderSeedsOf(GetParam().name);
  ASSERT_FALSE(seeds.empty());
  [[maybe_unused]] static const bool bounded = (BoundAddressSpace(), true);
  Replay(GetParam(), seeds, FormerReaderFailuresOf(GetParam().name));
}

INSTANTIATE_TEST_SUITE_P(Targets, ReaderReplay, testing::ValuesIn(kReaderTargets),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace athanor::fuzz

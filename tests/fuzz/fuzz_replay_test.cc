// What the service reads, under seeded mutations of good inputs: replay.h.
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include "tests/fuzz/fuzz_seeds.h"
#include "tests/fuzz/fuzz_targets.h"
#include "tests/fuzz/replay.h"

namespace athanor::fuzz {
namespace {

class ServiceReplay : public testing::TestWithParam<NamedTarget> {};

TEST_P(ServiceReplay, SurvivesMutations) {
  const std::vector<std::string> seeds = SeedsOf(GetParam().name);
  ASSERT_FALSE(seeds.empty());
  google::protobuf::SetLogHandler(nullptr);  // it complains about each text that is no UTF-8
  Replay(GetParam(), seeds, FormerFailuresOf(GetParam().name));
}

INSTANTIATE_TEST_SUITE_P(Targets, ServiceReplay, testing::ValuesIn(kTargets),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace athanor::fuzz

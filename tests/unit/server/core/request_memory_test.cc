#include "server/core/request_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

RequestEntry Entry(const std::string& key, absl::Time time) {
  RequestEntry entry;
  entry.key = key;
  entry.time = time;
  return entry;
}

TEST(RequestMemory, ForgetsTheOldestFirstByAgeAndByNumber) {
  std::map<std::string, RequestEntry> entries = {{"found", Entry("found", kStart)}};
  RequestMemory memory(entries, /*most=*/3, absl::Hours(1));
  EXPECT_EQ(memory.NextToForget(), kStart + absl::Hours(1)) << "what the store held counts";
  memory.Remember(Entry("b", kStart + absl::Minutes(1)));
  memory.Remember(Entry("a", kStart + absl::Minutes(2)));
  EXPECT_THAT(memory.Forget(kStart + absl::Minutes(3)), IsEmpty());
  memory.Remember(Entry("c", kStart + absl::Minutes(3)));
  EXPECT_THAT(memory.Forget(kStart + absl::Minutes(3)), ElementsAre("found"));
  EXPECT_EQ(memory.Find("found"), nullptr);
  EXPECT_EQ(memory.Find("b")->key, "b");
  EXPECT_THAT(memory.Forget(kStart + absl::Minutes(62)), ElementsAre("b", "a"));
  EXPECT_EQ(entries.size(), 1u);
}

TEST(RequestMemory, AnEmptyKeyIsNoKey) {
  std::map<std::string, RequestEntry> entries = {{"", Entry("", kStart)}};
  EXPECT_EQ(RequestMemory(entries, 3, absl::Hours(1)).Find(""), nullptr);
}

}  // namespace
}  // namespace athanor::core

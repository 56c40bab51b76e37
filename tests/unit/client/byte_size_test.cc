#include "client/byte_size.h"

#include <gtest/gtest.h>

namespace athanor {
namespace {

TEST(ByteSizeTest, ReadsNumbersWithUnits) {
  EXPECT_EQ(*ParseByteSize("1048576"), 1048576);
  EXPECT_EQ(*ParseByteSize("5GB"), 5'000'000'000);
  EXPECT_EQ(*ParseByteSize("1.5 GiB"), 1'610'612'736);
  EXPECT_EQ(*ParseByteSize("64kib"), 65536);
  EXPECT_EQ(*ParseByteSize("12B"), 12);
}

TEST(ByteSizeTest, RefusesWhatIsNone) {
  for (const char* text : {"", "GB", "0", "-1", "1XB", "1 G", "9999999PiB", "1.2.3", "0.2", "nan"}) {
    const absl::StatusOr<int64_t> size = ParseByteSize(text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace athanor

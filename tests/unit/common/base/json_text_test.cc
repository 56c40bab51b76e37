#include "athanor/base/json_text.h"

#include <gtest/gtest.h>

#include <string>

namespace athanor {
namespace {

std::string Nested(int depth) {
  return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
}

TEST(JsonTextTest, DepthHasALimit) {
  EXPECT_FALSE(ParseJsonText(Nested(kMaxJsonDepth)).is_discarded());
  EXPECT_TRUE(ParseJsonText(Nested(kMaxJsonDepth + 1)).is_discarded());
  EXPECT_TRUE(ParseJsonText("{\"x\": " + Nested(1'000'000) + "}").is_discarded());
  EXPECT_TRUE(ParseJsonText("{\"x\": 1e999}").is_discarded());
  EXPECT_TRUE(ParseJsonText("").is_discarded());
}

TEST(JsonTextTest, BracketsInTextsDoNotNest) {
  std::string text(1000, '[');
  for (const char* quoted : {"\\\"", "\\\\", "\\\\\\\""}) {
    const std::string document = "[\"" + text + quoted + text + "\", \"" + text + "\"]";
    EXPECT_FALSE(JsonNestsTooDeep(document)) << quoted;
    EXPECT_EQ(ParseJsonText(document).size(), 2u) << quoted;
  }
  std::string wide = "[";
  for (int i = 0; i < 1000; ++i) wide += "[{}],";
  EXPECT_EQ(ParseJsonText(wide + "1]").size(), 1001u);
}

}  // namespace
}  // namespace athanor

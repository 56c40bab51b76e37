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

TEST(JsonTextTest, KnowsUtf8) {
  for (const char* good :
       {"", "a", "\xc3\xa9", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3(", "\xe2(\xa1"}) {
    EXPECT_FALSE(IsUtf8(bad)) << bad;
    EXPECT_THROW((void)nlohmann::json(bad).dump(), nlohmann::json::exception);
  }
}

}  // namespace
}  // namespace athanor

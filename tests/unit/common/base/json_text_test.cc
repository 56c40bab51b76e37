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

TEST(JsonTextTest, SaysWhatIsWrong) {
  EXPECT_EQ(JsonProblem("{\"a\": NaN}"),
            "not JSON: NaN, which Python's json.dumps writes; allowed: numbers, or null where one is missing");
  EXPECT_NE(JsonProblem("[1, -Infinity]").find("-Infinity"), std::string::npos);
  EXPECT_EQ(JsonProblem("{\"NaN\": \"Infinity\\\"\", \"b\"}"), "not JSON from byte 26 on");
  EXPECT_EQ(JsonProblem("[1e999]").find("a number is too large"), 0u);
  EXPECT_NE(JsonProblem(std::string("{\0", 2)).find("UTF-16"), std::string::npos);
  EXPECT_EQ(JsonProblem(std::string(300, '[')).find("nested deeper than 200 levels"), 0u);
}

TEST(JsonTextTest, KnowsIntegersThatNoDoubleHolds) {
  for (const char* huge : {"[9223372036854775808]", "{\"a\":-9223372036854775809}", "1234567890123456789012"})
    EXPECT_TRUE(HoldsHugeInteger(huge)) << huge;
  for (const char* small :
       {"[9223372036854775807]", "{\"9223372036854775808\": 1e30}", "12345678901234567890.0", "1E+40"})
    EXPECT_FALSE(HoldsHugeInteger(small)) << small;
}

}  // namespace
}  // namespace athanor

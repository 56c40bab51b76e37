#include "athanor/base/utf8_text.h"

#include <gtest/gtest.h>

#include <random>

#include <nlohmann/json.hpp>

namespace athanor {
namespace {

TEST(Utf8Text, KnowsWhatIsValid) {
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

TEST(Utf8Text, TheFirstWrongByte) {
  EXPECT_EQ(FirstByteNotUtf8("gr\xc3\xb6\xff"), 4u);
  EXPECT_EQ(FirstByteNotUtf8("cut \xc3"), 4u);
  EXPECT_EQ(FirstByteNotUtf8("gr\xc3\xb6\xf0\x9f\x94\xa5"), std::string_view::npos);
}

TEST(Utf8Text, ControlCharactersAreTakenOut) {
  EXPECT_EQ(StripControlChars("a\x1b[31m\n\tgr\xc3\xb6\xc3\x9f\xc2\x9b"
                              "1m\x7f"),
            "a\\x1b[31m\n\tgr\xc3\xb6\xc3\x9f\\x9b1m\\x7f");
  EXPECT_EQ(StripControlChars("gr\xfc\xdf and \xc3\xb6 cut \xc3"), "gr\\xfc\\xdf and \xc3\xb6 cut \\xc3");
  EXPECT_EQ(StripControlChars("a\x1b[1m\n\xc2\x85\xff", ControlChars::kQuestionMark), "a?[1m\n?\xef\xbf\xbd");
}

TEST(Utf8Text, CutsAtACharactersBorder) {
  EXPECT_EQ(CutUtf8("abc", 3), "abc");
  EXPECT_EQ(CutUtf8("aöb", 2), "a") << "half a character cannot be sent";
  EXPECT_EQ(CutUtf8("aöb", 3), "aö");
  EXPECT_EQ(CutUtf8("日本", 5), "日");
  EXPECT_EQ(CutUtf8("日本", 0), "");
  EXPECT_EQ(CutUtf8Front("aöb", 2), "b");
  EXPECT_EQ(CutUtf8Front("aöb", 3), "öb");
  EXPECT_EQ(CutUtf8Front("日本", 5), "本");
  EXPECT_EQ(CutUtf8Front("日本", 100), "日本");
}

TEST(Utf8Text, ReplacesWhatIsNoCharacter) {
  EXPECT_EQ(ValidUtf8("größer"), "größer");
  EXPECT_EQ(ValidUtf8("a\xff"
                      "b"),
            "a\xef\xbf\xbd"
            "b");
  EXPECT_EQ(ValidUtf8("\xe2\x82"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(CutUtf8("\xff\xff", 4), "\xef\xbf\xbd") << "the limit holds for what comes out";
}

TEST(Utf8Text, WhateverComesInValidTextComesOut) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text(random() % 24, '\0');
    for (char& c : text) c = static_cast<char>(random() % 4 == 0 ? 0x80 + random() % 128 : "aé日𐍈"[random() % 10]);
    const size_t limit = random() % 26;
    for (const std::string& cut : {CutUtf8(text, limit), CutUtf8Front(text, limit)}) {
      EXPECT_TRUE(IsUtf8(cut));
      EXPECT_LE(cut.size(), limit);
      if (ValidUtf8(text).size() <= limit) EXPECT_EQ(cut, ValidUtf8(text));
    }
  }
}

}  // namespace
}  // namespace athanor

#include "athanor/base/delimited_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace athanor {
namespace {

// "1: a|b; 3: c|q'd'": the lines at which records begin, their cells, those in quotes marked.
std::string Records(const std::string& text, char delimiter = ',') {
  auto reader = DelimitedText::Open(text, delimiter);
  if (!reader.ok()) return std::string(reader.status().message());
  std::vector<std::string> records;
  std::vector<DelimitedText::Cell> cells;
  while (true) {
    const absl::StatusOr<bool> more = reader->Next(&cells);
    if (!more.ok()) records.push_back(absl::StrCat(reader->line(), ": ", more.status().message()));
    if (!more.ok() || !*more) return absl::StrJoin(records, "; ");
    std::vector<std::string> shown;
    for (const DelimitedText::Cell& cell : cells)
      shown.push_back(cell.quoted ? absl::StrCat("q'", std::string(cell.text), "'") : std::string(cell.text));
    records.push_back(absl::StrCat(reader->line(), ": ", absl::StrJoin(shown, "|")));
  }
}

TEST(DelimitedTextTest, RecordsEndWithAnyKindOfLineBreak) {
  for (const char* text : {"a,b\n1,2\n", "a,b\r\n1,2\r\n", "a,b\r1,2\r", "a,b\n1,2",
                           "\xef\xbb\xbf"
                           "a,b\n1,2\n"})
    EXPECT_EQ(Records(text), "1: a|b; 2: 1|2") << text;
  EXPECT_EQ(Records("a\tb,c\n", '\t'), "1: a|b,c");
  EXPECT_EQ(Records(",\n\n,,"), "1: |; 2: ; 3: ||");
  EXPECT_EQ(Records(""), "");
}

TEST(DelimitedTextTest, QuotesHoldDelimitersBreaksAndDoubledQuotes) {
  EXPECT_EQ(Records("\"a,\"\"b\"\"\nc\",d\r\n\"\",\"e\"\n"), "1: q'a,\"b\"\nc'|d; 3: q''|q'e'");
  EXPECT_EQ(Records("a\"b,\"c\"d\n1"), "1: a\"b|q'cd'; 2: 1");
  EXPECT_EQ(Records("\"a\"\r\"b\"\r\n\"c\""), "1: q'a'; 2: q'b'; 3: q'c'");
  EXPECT_EQ(Records("1,2\n3,\"4\n5"), "1: 1|2; 2: a quote is not closed");
}

TEST(DelimitedTextTest, OtherEncodingsAreRefused) {
  for (const char* text : {"\xff\xfe"
                           "1",
                           "\xfe\xff"
                           "1"})
    EXPECT_THAT(Records(text), testing::HasSubstr("UTF-16"));
}

}  // namespace
}  // namespace athanor

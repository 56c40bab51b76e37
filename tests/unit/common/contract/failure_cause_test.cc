// One description for each cause of failure: the table, the wire and the page that people read say the same.
#include "athanor/contract/failure_cause.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "athanor/v1/failure.pb.h"

namespace athanor {
namespace {

constexpr char kBegin[] = "| cause | when | exit code | budget by default | what to do |\n|---|---|---|---|---|\n";
constexpr char kOther[] = "| (stale)";

std::string Rows() {
  std::string rows;
  for (const CauseFacts& facts : kCauses) {
    absl::StrAppend(&rows, "| `", std::string(facts.name), "` | ", std::string(facts.meaning), " | ",
                    facts.kind == CauseKind::kSignal ? "128+n"
                    : facts.exit_code == kNoExitCode ? ""
                                                     : absl::StrCat(facts.exit_code),
                    facts.kind != CauseKind::kSignal && facts.exit_code == kNoExitCode ? "| " : " | ",
                    facts.budget == kUnlimited ? "unlimited" : absl::StrCat(facts.budget), " | ",
                    std::string(facts.advice), " |\n");
  }
  return rows;
}

TEST(FailureCause, TheWireHasTheSame) {
  EXPECT_EQ(v1::CauseKind_ARRAYSIZE, kCauseKinds);
  for (const CauseFacts& facts : kCauses)
    EXPECT_EQ(absl::AsciiStrToLower(v1::CauseKind_Name(static_cast<v1::CauseKind>(facts.kind))),
              std::string(facts.name));
}

TEST(FailureCause, EachExitCodeStandsForOne) {
  for (const CauseFacts& facts : kCauses) {
    if (facts.exit_code != kNoExitCode) {
      EXPECT_EQ(CauseOfExit(facts.exit_code)->kind, facts.kind);
    }
    EXPECT_EQ(CauseFromName(facts.name), facts.kind);
  }
  for (const int none : {0, static_cast<int>(kExitStale), static_cast<int>(kExitDoNotRestart), 1, 99})
    EXPECT_EQ(CauseOfExit(none), nullptr) << none;
  EXPECT_EQ(FactsOf(CauseKind::kUnspecified).kind, CauseKind::kOurBug);
}

// ATHANOR_UPDATE_DOCS=1 writes the page.
TEST(FailureCause, ThePageHasTheSame) {
  const std::string path = std::string(ATHANOR_SOURCE_DIR) + "/docs/errors.md";
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  std::string page = text.str();
  const size_t begin = page.find(kBegin);
  ASSERT_NE(begin, std::string::npos);
  const size_t rows = begin + sizeof kBegin - 1, end = page.find(kOther, rows);
  ASSERT_NE(end, std::string::npos);
  if (std::getenv("ATHANOR_UPDATE_DOCS") != nullptr) {
    page.replace(rows, end - rows, Rows());
    std::ofstream(path) << page;
    return;
  }
  EXPECT_EQ(page.substr(rows, end - rows), Rows());
}

}  // namespace
}  // namespace athanor

// The table of a job file's fields, and the page made from it.
#include "athanor/config/job_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"

namespace athanor {
namespace {

using testing::ElementsAre;

TEST(JobRules, KeysOfASection) {
  EXPECT_THAT(JobKeys(""), ElementsAre("name", "labels", "task", "resources", "priority", "preemptible", "runner",
                                       "restart", "timeouts", "fencing", "env", "parent", "log_format"));
  EXPECT_THAT(JobKeys("resources"), ElementsAre("ranks", "slots_per_rank", "device", "threads_per_rank"));
  EXPECT_THAT(JobKeys("name"), ElementsAre());
}

TEST(JobRules, Limits) {
  EXPECT_TRUE(InRange(JobFieldAt("resources.ranks"), 4096));
  EXPECT_FALSE(InRange(JobFieldAt("resources.ranks"), 0));
  EXPECT_FALSE(InRange(JobFieldAt("restart.backoff_jitter"), std::nan("")));
  EXPECT_TRUE(IsChoice(JobFieldAt("fencing"), "strict"));
  EXPECT_FALSE(IsChoice(JobFieldAt("fencing"), "Strict"));
  EXPECT_EQ(AllowedChoices(JobFieldAt("resources.device")), "cpu, cuda");
}

TEST(JobRules, WhatStandsInForAnAbsentFieldIsAllowed) {
  for (const JobField& field : JobFields()) {
    SCOPED_TRACE(field.rule.name);
    EXPECT_FALSE(field.rule.meaning.empty());
    double number = 0;
    absl::Duration duration;
    if (field.fallback.empty()) continue;
    if (field.kind == JobFieldKind::kInteger || field.kind == JobFieldKind::kNumber)
      EXPECT_TRUE(absl::SimpleAtod(field.fallback, &number) && InRange(field, number));
    if (field.kind == JobFieldKind::kChoice) EXPECT_TRUE(IsChoice(field, field.fallback));
    if (field.kind == JobFieldKind::kDuration)
      EXPECT_TRUE(absl::ParseDuration(field.fallback, &duration) && duration <= kMaxJobDuration);
  }
}

TEST(JobRules, ThePageIsMadeFromThem) {
  const std::string path = std::string(ATHANOR_SOURCE_DIR) + "/docs/job-files.md";
  if (std::getenv("ATHANOR_UPDATE_DOCS") != nullptr) std::ofstream(path) << JobFilesMarkdown();
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_TRUE(text.str() == JobFilesMarkdown())
      << "run this test with ATHANOR_UPDATE_DOCS=1 to write docs/job-files.md";
}

}  // namespace
}  // namespace athanor

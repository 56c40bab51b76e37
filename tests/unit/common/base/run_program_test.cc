#include "athanor/base/run_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

TEST(RunProgramTest, OutputAndExitCode) {
  const auto output =
      RunProgram({"sh", "-c", "echo $GREETING; echo noise >&2; exit 3"}, {.environment = {"GREETING=hi"}});
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(output->text, "hi\n");
  EXPECT_TRUE(output->complete);
  EXPECT_EQ(output->exit_code, 3);
  EXPECT_EQ(RunProgram({"no-such-program-anywhere"}, {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RunProgram({}, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RunProgramTest, TimeAndBytesAreBounded) {
  const auto slow = RunProgram({"sh", "-c", "echo begun; exec sleep 60"}, {.limit = absl::Milliseconds(200)});
  ASSERT_TRUE(slow.ok());
  EXPECT_EQ(slow->text, "begun\n");
  EXPECT_FALSE(slow->complete);
  const auto silent = RunProgram({"sh", "-c", "exec >&-; exec sleep 60"}, {.limit = absl::Milliseconds(200)});
  ASSERT_TRUE(silent.ok());
  EXPECT_TRUE(silent->complete) << "it closed its output and stayed";
  EXPECT_EQ(silent->exit_code, -1);
  const auto endless = RunProgram({"yes"}, {.max_bytes = 100000});
  ASSERT_TRUE(endless.ok());
  EXPECT_FALSE(endless->complete);
  EXPECT_GE(endless->text.size(), 100000u);
}

}  // namespace
}  // namespace athanor

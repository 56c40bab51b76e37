// What people read: logs of ranks, tables, figures, the words that are not known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>

#include "athanor/base/utf8_text.h"
#include "client/commands/command.h"
#include "client/log_printer.h"
#include "client/output.h"
#include "client/progress.h"

namespace athanor {
namespace {

using testing::HasSubstr;

std::string Printed(const LogPrinterOptions& options, const std::vector<std::string>& chunks) {
  std::ostringstream captured;
  std::streambuf* before = std::cout.rdbuf(captured.rdbuf());
  LogPrinter printer(options);
  for (const std::string& data : chunks) {
    v1::LogChunk chunk;
    chunk.set_generation(1);
    chunk.set_rank(2);
    chunk.set_data(data);
    printer.Print(chunk);
  }
  printer.Close();
  std::cout.rdbuf(before);
  return captured.str();
}

TEST(LogPrinter, LinesHaveTheirRankInFront) {
  EXPECT_EQ(Printed({.merged = true}, {"one\ntw", "o\n", "open"}), "[g1 r2] one\n[g1 r2] two\n[g1 r2] open\n");
  EXPECT_EQ(Printed({}, {"one\ntw", "o\r"}), "one\ntwo\r") << "as it is where nothing is merged";
}

TEST(LogPrinter, ABarOfProgressShowsWhileItMoves) {
  EXPECT_EQ(Printed({.merged = true}, {"1%\r", "2%\r", "done\r", "\nnext\r\n"}),
            "[g1 r2] 1%\r[g1 r2] 2%\r[g1 r2] done\r\n[g1 r2] next\n");
  EXPECT_EQ(Printed({.merged = true, .terminal = true}, {"10%\r5%\nx\x1b[2J\n"}),
            "[g1 r2] 10%\033[K\r[g1 r2] 5%\033[K\n[g1 r2] x\\x1b[2J\n");
}

TEST(LogPrinter, JsonIsOneObjectALine) {
  EXPECT_EQ(Printed({.merged = true, .format = OutputFormat::kJson}, {"a \"b\"\r", "\nc\xff\n", "1%\r2%"}),
            "{\"generation\":1,\"rank\":2,\"line\":\"a \\\"b\\\"\"}\n"
            "{\"generation\":1,\"rank\":2,\"line\":\"c\xef\xbf\xbd\"}\n"
            "{\"generation\":1,\"rank\":2,\"line\":\"1%\"}\n{\"generation\":1,\"rank\":2,\"line\":\"2%\"}\n");
  EXPECT_EQ(Printed({.format = OutputFormat::kYaml}, {"x\n"}), "- {\"generation\":1,\"rank\":2,\"line\":\"x\"}\n");
}

TEST(LogPrinter, ALineWithoutAnEndIsBroken) {
  const std::string text = Printed({.merged = true}, {std::string(1 << 20, 'x'), "y", "z\n"});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

TEST(Output, TextFromElsewhereCannotSteerTheTerminal) {
  EXPECT_EQ(FormatTable({{"a\x1b[31m\nb\tc", "x"}, {"\xff", "y"}}), "a\\x1b[31m b c  x\n\\xff           y\n");
  v1::Job job;
  job.mutable_progress()->add_ranks()->set_phase("\x1b]0;title\x07");
  job.set_state(v1::RUNNING);
  EXPECT_THAT(ProgressLine(job, 200), HasSubstr("\\x1b]0;title\\x07"));
  v1::JobEvent event;
  event.set_message(
      "\xc2\x9b"
      "1m");
  EXPECT_THAT(EventLine(event, false), HasSubstr(" \\x9b1m"));
}

TEST(Output, TextIsCutBetweenCharacters) {
  EXPECT_EQ(FirstColumns("gr\xc3\xb6\xc3\x9f"
                         "e",
                         3),
            "gr\xc3\xb6");
  EXPECT_EQ(FirstColumns("abc", 3), "abc");
  EXPECT_EQ(FormatTable({{"\xc3\xb6\xc3\xb6", "x"}, {"abc", "y"}}), "\xc3\xb6\xc3\xb6   x\nabc  y\n");
}

TEST(Output, SmallFiguresAreNotZero) {
  EXPECT_EQ(FormatFigure(0.1432), "0.1432");
  EXPECT_EQ(FormatFigure(0.0000143), "1.43e-05");
  v1::Job job;
  job.mutable_progress()->set_step(3);
  job.mutable_progress()->set_loss(2e-6);
  EXPECT_THAT(ProgressLine(job, 200), HasSubstr("loss 2e-06"));
}

// Requests are checked before they are sent: protobuf refuses such texts without naming them.
TEST(Utf8, OfARequestIsNamedByItsField) {
  v1::JobVerbRequest verb;
  verb.set_reason("gr\xfc\xdf");
  EXPECT_EQ(CoordinatorClient::CheckUtf8(verb).message(), "reason: byte 3 is not UTF-8; allowed: UTF-8 text");
  v1::SubmitJobRequest submit;
  (*submit.mutable_spec()->mutable_env())["TOKEN"] = "secret\xff";
  EXPECT_EQ(CoordinatorClient::CheckUtf8(submit).message(),
            "spec.env[TOKEN]: byte 7 is not UTF-8; allowed: UTF-8 text");
  submit.mutable_spec()->clear_env();
  (*submit.mutable_spec()->mutable_restart()->mutable_budgets())["\xff"] = 1;
  EXPECT_THAT(std::string(CoordinatorClient::CheckUtf8(submit).message()), HasSubstr("spec.restart.budgets, a name"));
  submit.mutable_spec()->clear_restart();
  EXPECT_TRUE(CoordinatorClient::CheckUtf8(submit).ok());
}

class UnknownWord : public testing::Test {
 protected:
  UnknownWord() {
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.add_option("-s,--server", context_.server, "");
    app_.add_flag("-q,--quiet", context_.quiet, "");
    AddJobCommands(app_, context_);
    AddCheckpointCommands(app_, context_);
  }
  std::string Explain(const std::vector<std::string>& words) { return ExplainUnknownWord(app_, words); }
  CommandContext context_;
  CLI::App app_;
};

TEST_F(UnknownWord, HasTheNearestCommandOrOption) {
  EXPECT_THAT(Explain({"job", "sumbit", "x.yaml"}),
              HasSubstr("athanor job: no command 'sumbit', did you mean 'submit'?"));
  EXPECT_THAT(Explain({"-s", "host:1", "jobs", "list"}), HasSubstr("athanor: no command 'jobs', did you mean 'job'?"));
  EXPECT_THAT(Explain({"-q", "job", "cancle", "digits"}), HasSubstr("did you mean 'cancel'?"));
  EXPECT_THAT(Explain({"job", "logs", "digits", "--folow"}),
              HasSubstr("athanor job logs: no option '--folow', did you mean '--follow'?"));
  EXPECT_THAT(Explain({"job", "get", "--sever=x", "digits"}), HasSubstr("did you mean '--server'?"));
  EXPECT_EQ(Explain({"job", "submit", "x.yaml", "--set", "a=b", "--watch"}), "");
  EXPECT_EQ(Explain({"job", "get", "--", "--strange"}), "");
  EXPECT_THAT(Explain({"-q", "checkpoint"}), HasSubstr("athanor checkpoint: which command? allowed: list, show"));
}

}  // namespace
}  // namespace athanor

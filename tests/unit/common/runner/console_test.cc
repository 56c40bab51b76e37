// What a run shows on the terminal (run_console.h).
#include "athanor/runner/record/run_console.h"

#include <cmath>

#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

std::string Written(const ConsoleOptions& form, const std::function<void(RunConsole&)>& write) {
  std::FILE* file = std::tmpfile();
  {
    ConsoleOptions options = form;
    options.stream = file;
    RunConsole console(options);
    write(console);
  }
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  std::fclose(file);
  return text;
}

ProgressReport Halfway() {
  ProgressReport progress;
  progress.step = 500;
  progress.total_steps = 1000;
  progress.loss = 0.12345;
  progress.total_samples_per_second = 4120.4;
  progress.eta_seconds = 64;
  return progress;
}

TEST(RunConsoleTest, OneLineTellsWhereTheRunStands) {
  EXPECT_EQ(ProgressText(Halfway()), "[==========>         ]  50% 500/1000  loss 0.1235  4120 samples/s  eta 1m04s");
  ProgressReport unknown;
  unknown.step = 7;
  unknown.loss = std::nan("");
  EXPECT_EQ(ProgressText(unknown), "7 steps");
  ProgressReport done = Halfway();
  done.step = 1000;
  done.eta_seconds = 0;
  EXPECT_THAT(ProgressText(done), testing::StartsWith("[====================] 100% 1000/1000"));
}

TEST(RunConsoleTest, DurationsAreShort) {
  EXPECT_EQ(DurationText(44.6), "45 s");
  EXPECT_EQ(DurationText(3599), "59m59s");
  EXPECT_EQ(DurationText(7500), "2h05m");
  EXPECT_EQ(DurationText(86400 * 12 + 3600 * 3), "12d03h");
  EXPECT_EQ(DurationText(-1), "?");
  EXPECT_EQ(DurationText(std::nan("")), "?");
}

TEST(RunConsoleTest, AFileGetsPlainLinesAndNoProgress) {
  EXPECT_EQ(Written({},
                    [](RunConsole& console) {
                      console.Progress(Halfway());
                      console.Line("ERROR", "broken");
                    }),
            "broken\n");
}

TEST(RunConsoleTest, ATerminalKeepsOneLineOfProgressBelow) {
  const std::string text = Written({.is_terminal = true, .colours = true}, [](RunConsole& console) {
    console.Progress(Halfway());
    console.Line("INFO", "one");
    console.Line("WARNING", "two");
    console.Progress(Halfway());
  });
  const std::string line = ProgressText(Halfway());
  EXPECT_EQ(text, line + "\r\033[Kone\n\033[33mtwo\033[0m\n" + line + "\n");
}

TEST(EvaluateTest, ALimitAndAShortSplitAreBothFine) {
  auto net = std::make_shared<TestNet>(0, false);
  std::vector<int64_t> sizes;
  TorchRunnerOptions options;
  options.workspace_from_config = false;
  options.model = net;
  options.datasets = {{"train", TestData(32, 1)}, {"val", TestData(37, 2)}};
  options.forward = [&](const Batch& batch) {
    sizes.push_back(batch.size);
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target)};
  };
  auto runner = TorchRunner::Create(TestConfig(), std::move(options));
  ASSERT_TRUE(runner.ok()) << runner.status();
  const auto part = (*runner)->Evaluate("val", 2);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_THAT(sizes, testing::ElementsAre(8, 8));
  sizes.clear();
  const auto more_than_there_is = (*runner)->Evaluate("val", 1000), whole = (*runner)->Evaluate("val");
  ASSERT_TRUE(more_than_there_is.ok() && whole.ok());
  EXPECT_EQ(more_than_there_is->at("loss"), whole->at("loss"));
  EXPECT_NE(part->at("loss"), whole->at("loss"));
}

TEST(AccelerationTest, TheCpuRefusesWhatItHasNot) {
  const std::pair<nlohmann::json, const char*> wrong[] = {
      {{{"precision", "fp8"}}, "fp8 needs a CUDA device of compute capability 8.9"},
      {{{"fp8", {{"enabled", true}}}}, "fp8 needs a CUDA device of compute capability 8.9"},
      {{{"compile", {{"enable", true}}}}, "compile.enable: CUDA graphs need"},
      {{{"stack", "graph"}}, "compile.enable: CUDA graphs need"},
  };
  for (const auto& [changes, problem] : wrong) {
    RunSpec spec;
    spec.config = TestConfig(changes);
    const auto runs = TrainAll(spec);
    EXPECT_EQ(FailureKindOf(runs[0].result.status()), FailureKind::kInvalid);
    EXPECT_THAT(std::string(runs[0].result.status().message()), testing::HasSubstr(problem));
  }
}

}  // namespace
}  // namespace athanor

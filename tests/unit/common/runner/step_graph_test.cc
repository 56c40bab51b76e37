// Whole runs whose steps and updates are graphs (of the CPU: tests/support/recorded_graph.h) train as runs without.
#include "athanor/runner/step/step_graph.h"

#include "tests/support/recorded_graph.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using testing::HasSubstr;

// Learning rates that are exact in float32, which is what a graph reads: then nothing at all is rounded otherwise.
constexpr double kLr = 0.0078125;

nlohmann::json Fixed(nlohmann::json changes = nlohmann::json::object()) {
  nlohmann::json all = {{"optim", {{"lr", kLr}}}, {"sched", {{"type", "step"}, {"step_size", 10}, {"gamma", 0.5}}}};
  all.merge_patch(changes);
  return all;
}

RankRun Train(nlohmann::json changes, bool graphs, RunSpec spec = {}) {
  if (graphs) {
    changes["compile"]["enable"] = true;
    spec.graphs = RecordedGraphs();
  }
  spec.config = TestConfig(changes);
  RankRun run = TrainAll(spec)[0];
  EXPECT_TRUE(run.result.ok()) << run.result.status();
  return run;
}

TEST(StepGraphTest, RunsAreBitForBitThoseWithoutGraphs) {
  const std::vector<nlohmann::json> cases = {
      {{"max_grad_norm", 0.5}},
      {{"optim", {{"type", "sgd"}, {"momentum", 0.9}}}},
      {{"optim", {{"type", "adam"}, {"amsgrad", true}}}, {"max_grad_value", 0.01}},
      {{"optim", {{"type", "adagrad"}}}},
      {{"optim", {{"type", "lion"}}}},  // the update is launched as it is
      {{"ema", {{"enabled", true}, {"decay", 0.9}}}},
      {{"skip_nonfinite_grad", true}},
      {{"accum_steps", 4}, {"steps", 60}, {"max_grad_norm", 0.5}},  // remainder windows: another factor
      {{"dataloader", {{"drop_last", true}}}},
  };
  for (const nlohmann::json& changes : cases) {
    SCOPED_TRACE(changes.dump());
    const RankRun plain = Train(Fixed(changes), false), graphed = Train(Fixed(changes), true);
    ExpectSameModel(plain.model, graphed.model);
    EXPECT_GT(graphed.step_replays, 15);
    if (changes.value("/optim/type"_json_pointer, "") == "lion") {
      EXPECT_EQ(graphed.update_replays, 0);
    } else {
      EXPECT_GT(graphed.update_replays, 15);
    }
    ASSERT_EQ(plain.reports.size(), graphed.reports.size());
    for (size_t i = 0; i < plain.reports.size(); ++i) {
      EXPECT_THAT(graphed.reports[i].loss, testing::NanSensitiveDoubleEq(plain.reports[i].loss)) << i;
    }
  }
}

TEST(StepGraphTest, LearningRatesGoOnChanging) {
  // A learning rate that is not exact in float32 is rounded once: 6e-8 of it.
  const nlohmann::json changes = {{"sched", {{"type", "cosine"}}}, {"max_grad_norm", 0.5}};
  RunSpec spec;
  spec.with_norm = false;  // before it a bias has no gradient but what rounding leaves
  const RankRun plain = Train(changes, false, spec), graphed = Train(changes, true, spec);
  EXPECT_GT(graphed.update_replays, 15);
  for (const auto& [name, tensor] : plain.model) {
    const double most = (tensor - graphed.model.at(name)).abs().max().item<double>();
    EXPECT_LT(most, 2e-6) << name;
  }
  // And a run that replays computes what one that is still warming up computes.
  nlohmann::json warm = changes;
  warm["compile"]["warmup"] = 1000;
  const RankRun warming = Train(warm, true, spec);
  EXPECT_EQ(warming.update_replays, 0);
  ExpectSameModel(warming.model, graphed.model);
}

TEST(StepGraphTest, AResumedRunIsTheUndisturbedOne) {
  const TestFolder folder;
  nlohmann::json changes = {{"sched", {{"type", "cosine"}}}};
  const RankRun whole = Train(changes, true);
  RunSpec spec;
  spec.root = folder.path();
  spec.stop_at_step = 10;
  Train(changes, true, spec);
  spec.stop_at_step = -1;
  spec.candidates = {folder.At(10)};
  const RankRun resumed = Train(changes, true, spec);
  EXPECT_GT(resumed.update_replays, 5);
  ExpectSameModel(whole.model, resumed.model);
}

TEST(StepGraphTest, WeightsOfTheWindowAreReadAnewEachTime) {
  RunSpec spec;
  spec.change_output = [](int, const Batch& batch, StepOutput* output) {
    output->weight = (batch.target == 1).sum().to(torch::kFloat);
  };
  nlohmann::json changes = Fixed({{"accum_steps", 2}, {"max_grad_norm", 0.5}});
  const RankRun plain = Train(changes, false, spec), graphed = Train(changes, true, spec);
  EXPECT_GT(graphed.update_replays, 15);
  ExpectSameModel(plain.model, graphed.model);
}

TEST(StepGraphTest, AStepThatWaitsForTheDeviceIsAClearFailure) {
  RunSpec spec;
  spec.graphs = RecordedGraphs();
  spec.config = TestConfig({{"compile", {{"enable", true}}}});
  spec.change_output = [](int, const Batch&, StepOutput* output) {
    output->loss = output->loss * output->loss.item<float>();
  };
  const RankRun run = TrainAll(spec)[0];
  ASSERT_FALSE(run.result.ok());
  EXPECT_THAT(run.result.status().message(), HasSubstr("captured work waits for the device"));
}

TEST(StepGraphTest, ShapesBeyondTheLimitAndRaggedBatchesRunStepByStep) {
  StepGraph graph(RecordedGraphs(), {.warmup = 1});
  int64_t calls = 0;
  const auto step = [&](const Batch& batch) {
    ++calls;
    StepOutput output;
    output.loss = batch.input.sum();
    output.metrics["twice"] = batch.input.sum() * 2;
    return output;
  };
  const auto run = [&](int64_t size, double value) {
    Batch batch;
    batch.input = torch::full({size}, value);
    batch.size = size;
    return graph.Run(batch, true, step);
  };
  const auto limit = static_cast<int64_t>(StepGraph::kMaxGraphs);
  for (int64_t size = 1; size <= limit + 1; ++size) {
    for (int round = 0; round < 4; ++round) {
      const StepOutput output = run(size, round);
      EXPECT_EQ(output.loss.item<double>(), static_cast<double>(size * round));
      EXPECT_EQ(output.metrics.at("twice").item<double>(), static_cast<double>(2 * size * round));
    }
  }
  EXPECT_EQ(graph.replays(), 2 * limit);  // of four runs: one warm-up, one capture
  EXPECT_EQ(calls, 2 * limit + 4);        // the shape too many runs each time
  const StepOutput kept = run(1, 5), next = run(1, 6);
  EXPECT_EQ(kept.loss.item<double>(), 5);  // a copy: the next replay leaves it alone
  EXPECT_EQ(next.loss.item<double>(), 6);
}

TEST(StepGraphTest, ABufferThatIsAssignedAnewIsNamed) {
  RunSpec spec;
  spec.config = TestConfig(Fixed({{"compile", {{"enable", true}}}}));
  spec.graphs = RecordedGraphs();
  spec.before_forward = [](int, TestNet* net) { net->norm->running_mean.set_data(net->norm->running_mean * 0.9); };
  EXPECT_THAT(std::string(TrainAll(spec)[0].result.status().message()),
              HasSubstr("assigns its buffer 'norm.running_mean' anew"));
}

}  // namespace
}  // namespace athanor

// optim.type lbfgs in a runner: the window of micro-batches is evaluated as often as the optimizer wants.
#include "athanor/optim/optimizer.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

const nlohmann::json kLbfgs = {{"steps", 6},
                               {"optim", {{"type", "lbfgs"}, {"lr", 0.5}, {"max_iter", 4}, {"history_size", 5}}},
                               {"sched", nullptr},
                               {"dataloader", {{"batch_size", 16}, {"shuffle", false}}},
                               {"checkpoint", {{"interval", 3}}}};

RunSpec Spec(int world_size, int64_t batch, int64_t accum) {
  nlohmann::json changes = kLbfgs;
  changes["dataloader"]["batch_size"] = batch;
  changes["accum_steps"] = accum;
  RunSpec spec;
  spec.config = TestConfig(changes);
  spec.world_size = world_size;
  spec.dropout = 0;
  spec.with_norm = false;
  spec.samples = 96;
  return spec;
}

RankRun ByHand() {
  RankRun run;
  TestNet net(0, false);
  NamedTensors parameters;
  for (const auto& item : net.named_parameters()) parameters.emplace_back(item.key(), item.value());
  OptimConfig config = Spec(1, 16, 1).config.optim;
  auto optimizer = *MakeOptimizer(config, parameters);
  const auto data = TestData(96, 1);
  for (int64_t step = 0; step < 6; ++step) {
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < 16; ++i) rows.push_back(step * 16 + i);
    const Batch batch = *data->Get(rows);
    optimizer->Step([&] {
      const torch::Tensor loss = torch::nn::functional::cross_entropy(net.forward(batch.input), batch.target);
      loss.backward();
      return loss.detach();
    });
  }
  for (const auto& item : net.named_parameters()) run.model[item.key()] = item.value().detach().clone();
  return run;
}

void ExpectClose(const RankRun& a, const RankRun& b, double tolerance) {
  for (const auto& [name, tensor] : a.model)
    EXPECT_TRUE(torch::allclose(tensor, b.model.at(name), tolerance, tolerance)) << name;
}

TEST(ClosureTest, OneRankIsTheLoopByHand) {
  const auto runs = TrainAll(Spec(1, 16, 1));
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_EQ(runs[0].result->step, 6);
  ExpectClose(ByHand(), runs[0], 1e-6);  // the runner's loss is float64 on its way into the line search
}

TEST(ClosureTest, WindowsAndRanksAreTheSameMean) {
  const auto whole = TrainAll(Spec(1, 16, 1));
  const auto windows = TrainAll(Spec(1, 8, 2));
  ASSERT_TRUE(windows[0].result.ok()) << windows[0].result.status();
  // Sums in another order, through several line searches.
  ExpectClose(whole[0], windows[0], 1e-3);
  const auto ranks = TrainAll(Spec(2, 8, 1));
  ASSERT_TRUE(ranks[0].result.ok()) << ranks[0].result.status();
  ExpectSameModel(ranks[0].model, ranks[1].model);
  ExpectClose(whole[0], ranks[0], 1e-3);
}

TEST(ClosureTest, AResumedRunIsBitEqual) {
  const auto undisturbed = TrainAll(Spec(1, 16, 1));
  TestFolder folder;
  RunSpec first = Spec(1, 16, 1);
  first.root = folder.path();
  first.stop_at_step = 3;
  const auto stopped = TrainAll(first);
  ASSERT_TRUE(stopped[0].result.ok()) << stopped[0].result.status();
  ASSERT_EQ(stopped[0].result->outcome, RunOutcome::kPreempted);
  RunSpec second = Spec(1, 16, 1);
  second.root = folder.path();
  second.candidates = {folder.At(stopped[0].result->step)};
  const auto resumed = TrainAll(second);
  ASSERT_TRUE(resumed[0].result.ok()) << resumed[0].result.status();
  ExpectSameModel(undisturbed[0].model, resumed[0].model);
}

TEST(ClosureTest, MetersSeeTheFirstEvaluationOnly) {
  int64_t calls = 0;
  RunSpec spec = Spec(1, 16, 1);
  spec.change_output = [&calls](int, const Batch&, StepOutput*) { ++calls; };
  const auto runs = TrainAll(spec);
  ASSERT_TRUE(runs[0].result.ok()) << runs[0].result.status();
  EXPECT_GT(calls, 12) << "the line search evaluates several times";
  EXPECT_EQ(runs[0].reports.back().samples, 96);
}

}  // namespace
}  // namespace athanor

// One process against several: the same samples per update give the same model, within float32's rounding; evaluation
// is exact.
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

struct Division {
  int world, batch, accum;
  bool shared_memory;
};

std::vector<RankRun> TrainDivided(const Division& division, int64_t samples) {
  RunSpec spec;
  spec.world_size = division.world;
  spec.shared_memory = division.shared_memory;
  spec.samples = samples;
  spec.dropout = 0;
  spec.with_norm = false;  // its statistics are of one rank's batch, by design
  spec.config = TestConfig({{"dataloader", {{"batch_size", division.batch}}},
                            {"accum_steps", division.accum},
                            {"optim", {{"type", "sgd"}, {"lr", 0.1}, {"momentum", 0.9}}},
                            {"max_grad_norm", 0.5}});
  return TrainAll(spec);
}

class DivisionTest : public ::testing::TestWithParam<Division> {};

TEST_P(DivisionTest, SameSamplesSameModel) {
  // 96 divides into windows of 16; 100 leaves a short one at the end of each pass.
  for (int64_t samples : {96, 100}) {
    const auto whole = TrainDivided({1, 16, 1, false}, samples);
    ASSERT_TRUE(whole[0].result.ok()) << whole[0].result.status();
    const auto divided = TrainDivided(GetParam(), samples);
    for (const RankRun& run : divided) {
      ASSERT_TRUE(run.result.ok()) << run.result.status();
      EXPECT_EQ(run.result->step, 30);
      EXPECT_EQ(run.result->epoch, whole[0].result->epoch);
      for (const auto& [name, tensor] : whole[0].model) {
        EXPECT_TRUE(torch::allclose(tensor, run.model.at(name), 1e-4, 1e-5)) << name << ", " << samples << " samples";
        EXPECT_TRUE(torch::equal(run.model.at(name), divided[0].model.at(name))) << name << " differs between ranks";
      }
      EXPECT_NEAR(run.result->metrics.at("val.loss"), whole[0].result->metrics.at("val.loss"), 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Divisions, DivisionTest,
                         ::testing::Values(Division{1, 8, 2, false}, Division{1, 4, 4, false}, Division{2, 8, 1, true},
                                           Division{2, 8, 1, false}, Division{2, 4, 2, true}, Division{4, 4, 1, true},
                                           Division{4, 2, 2, false}));

TEST(Evaluation, CountsEverySampleOnceOnAnyNumberOfRanks) {
  const auto evaluate = [](int world, int batch) {
    std::vector<std::map<std::string, double>> results(world);
    const auto body = [&](ProcessGroup* group) {
      const int rank = group == nullptr ? 0 : group->rank();
      auto net = std::make_shared<TestNet>();
      TorchRunnerOptions options;
      options.workspace_from_config = false;
      options.model = net;
      options.datasets = {{"train", TestData(40, 1)}, {"val", TestData(37, 2)}, {"tiny", TestData(2, 3)}};
      options.forward = [net](const Batch& batch) {
        torch::Tensor logits = net->forward(batch.input);
        return StepOutput{torch::nn::functional::cross_entropy(logits, batch.target),
                          {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
      };
      options.members = group;
      auto runner = TorchRunner::Create(TestConfig({{"dataloader", {{"batch_size", batch}}}}), std::move(options));
      ASSERT_TRUE(runner.ok()) << runner.status();
      for (const char* split : {"val", "tiny"}) {
        auto means = (*runner)->Evaluate(split);
        ASSERT_TRUE(means.ok()) << means.status();
        for (const auto& [name, value] : *means) results[rank][std::string(split) + "." + name] = value;
      }
      EXPECT_TRUE(absl::IsNotFound((*runner)->Evaluate("nope").status()));
    };
    if (world == 1) {
      body(nullptr);
    } else {
      RunRanks(world, true, body);
    }
    for (const auto& result : results) EXPECT_EQ(result, results[0]);
    return results[0];
  };
  const auto expected = evaluate(1, 37);
  ASSERT_EQ(expected.size(), 4u);
  for (int world : {1, 2, 3, 5}) {
    for (int batch : {1, 4, 7}) {
      for (const auto& [name, value] : evaluate(world, batch)) {
        EXPECT_NEAR(value, expected.at(name), 1e-6) << name << ", " << world << " ranks, batches of " << batch;
      }
    }
  }
}

}  // namespace
}  // namespace athanor

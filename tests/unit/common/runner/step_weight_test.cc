// StepOutput::weight: what counts in a window, over micro-batches and over ranks.
#include <cmath>

#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

RunSpec Spec(int world_size, const nlohmann::json& changes,
             std::function<void(int, const Batch&, StepOutput*)> change) {
  RunSpec spec;
  spec.config = TestConfig(changes);
  spec.world_size = world_size;
  spec.dropout = 0;
  spec.with_norm = false;
  spec.change_output = std::move(change);
  return spec;
}

void ExpectCloseModels(const RankRun& a, const RankRun& b) {
  ASSERT_TRUE(a.result.ok()) << a.result.status();
  ASSERT_TRUE(b.result.ok()) << b.result.status();
  for (const auto& [name, tensor] : a.model) EXPECT_TRUE(torch::allclose(tensor, b.model.at(name), 1e-4, 1e-6)) << name;
}

const nlohmann::json kPlain = {{"steps", 12}, {"optim", {{"type", "sgd"}, {"lr", 0.1}}}};

TEST(StepWeightTest, ARankOfWeightZeroCountsNothingEvenWithNaN) {
  const auto weighted = TrainAll(Spec(2, kPlain, [](int rank, const Batch&, StepOutput* output) {
    output->weight = torch::tensor(rank == 0 ? 3.0 : 0.0);
    if (rank == 1) output->loss = torch::where(output->weight > 0, output->loss, output->loss.detach() * std::nan(""));
  }));
  // The same by hand: the mean over two ranks of twice the one and nothing of the other.
  const auto by_hand = TrainAll(Spec(2, kPlain, [](int rank, const Batch&, StepOutput* output) {
    output->loss = output->loss * (rank == 0 ? 2.0 : 0.0);
  }));
  ExpectCloseModels(weighted[0], by_hand[0]);
  EXPECT_TRUE(std::isfinite(weighted[0].result->metrics.at("train.loss")));
  EXPECT_TRUE(std::isfinite(weighted[1].result->metrics.at("train.loss"))) << "a loss of weight 0 is in no mean";
}

TEST(StepWeightTest, UnevenRanksAreOneWeightedMean) {
  const auto weighted = TrainAll(Spec(2, kPlain, [](int rank, const Batch&, StepOutput* output) {
    output->weight = torch::tensor(rank == 0 ? 1.0 : 4.0);
  }));
  const auto by_hand = TrainAll(Spec(2, kPlain, [](int rank, const Batch&, StepOutput* output) {
    output->loss = output->loss * (rank == 0 ? 2.0 / 5 : 8.0 / 5);
  }));
  ExpectCloseModels(weighted[0], by_hand[0]);
  ExpectSameModel(weighted[0].model, weighted[1].model);
}

TEST(StepWeightTest, WindowsWeighTheirMicroBatches) {
  nlohmann::json config = kPlain;
  config["accum_steps"] = 3;
  int64_t call = 0;
  const auto equal = TrainAll(Spec(1, config, nullptr));
  // The weight that the batch has anyway, said aloud.
  const auto said = TrainAll(Spec(1, config, [](int, const Batch& batch, StepOutput* output) {
    output->weight = torch::tensor(static_cast<double>(batch.size));
  }));
  ExpectCloseModels(said[0], equal[0]);
  const auto others = TrainAll(Spec(1, config, [&](int, const Batch&, StepOutput* output) {
    output->weight = torch::tensor(static_cast<double>(call++ % 3));
  }));
  ASSERT_TRUE(others[0].result.ok());
  EXPECT_FALSE(torch::allclose(others[0].model.at("first.weight"), equal[0].model.at("first.weight")));
}

TEST(StepWeightTest, SomeWithAndSomeWithoutIsAMistake) {
  nlohmann::json config = kPlain;
  config["accum_steps"] = 2;
  int64_t call = 0;
  const auto mixed = TrainAll(Spec(1, config, [&](int, const Batch&, StepOutput* output) {
    if (call++ % 2 == 0) output->weight = torch::tensor(1.0);
  }));
  EXPECT_THAT(std::string(mixed[0].result.status().message()), testing::HasSubstr("none for others"));
}

}  // namespace
}  // namespace athanor

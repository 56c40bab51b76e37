#include "athanor/runner/state/model_state.h"

#include "athanor/runner/state/runner_state.h"
#include "athanor/torch/status.h"
#include "tests/unit/common/runner/model_fixture.h"

namespace athanor {
namespace {

using testing::HasSubstr;

class ModelStateTest : public WeightRunTest {
 protected:
  ModelState State(WeightRun& run) { return {run.context, &run.trained, &run.data, &seed_}; }
  static RestoredState Restored(TrainingState state, bool same_world = true) {
    RestoredState restored;
    restored.state = std::move(state);
    restored.world_size = same_world ? 1 : 2;
    restored.same_world = same_world;
    return restored;
  }
  // One update of adamw, so that there is a state.
  static void Train(WeightRun& run) {
    run.model->weight.mutable_grad() = torch::full({1}, 0.5);
    ASSERT_TRUE(*run.trained.container->Step(1.0));
    ASSERT_TRUE(run.data.train().Next().ok());
  }
  static TrainingState Copied(TrainingState state) {
    for (auto& [name, tensor] : state.replicated) tensor = tensor.clone();
    for (auto& [name, tensor] : state.per_rank) tensor = tensor.clone();
    return state;
  }
  uint64_t seed_ = 1;
};

TEST_F(ModelStateTest, WhatWasCapturedComesBack) {
  WeightRun& run = Make();
  Train(run);
  ModelState state = State(run);
  const TrainingState captured = Copied(*state.Capture(/*model_only=*/false));
  const float weight = run.model->weight.item<float>();
  const nlohmann::json optimizer = run.trained.optimizer->StateScalars(), position = run.data.train().StateDict();
  const float drawn = torch::rand({1}).item<float>();
  Train(run);
  ASSERT_NE(run.model->weight.item<float>(), weight);
  ASSERT_EQ(state.Load(Restored(captured), {}, /*step=*/1), absl::OkStatus());
  EXPECT_EQ(run.model->weight.item<float>(), weight);
  EXPECT_EQ(run.trained.optimizer->StateScalars(), optimizer);
  EXPECT_EQ(run.data.train().StateDict(), position);
  EXPECT_EQ(torch::rand({1}).item<float>(), drawn) << "the generator goes on where it was";
}

TEST_F(ModelStateTest, PartsThatAreLeftOutStayAsTheyAre) {
  WeightRun& run = Make();
  Train(run);
  ModelState state = State(run);
  const TrainingState captured = Copied(*state.Capture(false));
  Train(run);
  const float weight = run.model->weight.item<float>();
  const nlohmann::json position = run.data.train().StateDict();
  ASSERT_EQ(state.Load(Restored(captured), {.left_out = {"model", "dataloader"}}, 1), absl::OkStatus());
  EXPECT_EQ(run.model->weight.item<float>(), weight);
  EXPECT_EQ(run.data.train().StateDict(), position);
}

TEST_F(ModelStateTest, AModelAloneIsSmallAndOfTheTypeThatWasAskedFor) {
  WeightRun& run = Make({{"checkpoint", {{"export_dtype", "bf16"}, {"last_save_model_only", true}}}});
  Train(run);
  ModelState state = State(run);
  const TrainingState captured = *state.Capture(/*model_only=*/true);
  EXPECT_EQ(captured.replicated.size(), 1u);
  EXPECT_EQ(captured.replicated.at("model.weight").scalar_type(), torch::kBFloat16);
  EXPECT_FALSE(captured.meta.contains("optimizer"));
  const absl::Status refused = state.Load(Restored(captured), {}, 1);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("the checkpoint holds the model alone"));
  EXPECT_EQ(state.Load(Restored(captured), {.left_out = {}, .weights_only = true}, 1), absl::OkStatus());
}

TEST_F(ModelStateTest, StatesOfOtherModelsAreNamed) {
  WeightRun& run = Make();
  ModelState state = State(run);
  const TrainingState captured = Copied(*state.Capture(false));
  const auto refused = [&](const TrainingState& other) {
    const absl::Status status = state.Load(Restored(other), {}, 0);
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  };
  TrainingState other = captured;
  other.replicated["model.weight"] = torch::ones({2});
  EXPECT_THAT(refused(other), HasSubstr("tensor 'model.weight' is [2] in the checkpoint and [1] in the model"));
  other.replicated.erase("model.weight");
  EXPECT_THAT(refused(other), HasSubstr("the checkpoint has no tensor 'model.weight': it is of another model"));
  other = captured;
  other.meta.erase("format");
  EXPECT_THAT(refused(other), HasSubstr("its state is of another format than 1"));
  other = captured;
  other.meta.erase("optimizer");
  EXPECT_THAT(refused(other), HasSubstr("no 'optimizer' in its state"));
}

// Ranks of another number begin numbers of their own, and never those of the start.
TEST_F(ModelStateTest, AnotherNumberOfRanksSeedsAnew) {
  WeightRun& run = Make();
  ModelState state = State(run);
  const TrainingState captured = Copied(*state.Capture(false));
  const auto draw = [&] {
    RestoredState restored = Restored(captured, /*same_world=*/false);
    restored.step = 10;
    EXPECT_EQ(state.Load(restored, {}, 10), absl::OkStatus());
    return torch::rand({1}).item<float>();
  };
  const float first = draw();
  EXPECT_EQ(draw(), first);
  SeedGenerators(seed_);
  EXPECT_NE(torch::rand({1}).item<float>(), first);
}

TEST_F(ModelStateTest, AParameterThatWasAssignedAnewIsNamed) {
  WeightRun& run = Make();
  run.model->named_parameters(false)["weight"].set_data(torch::ones({1}));
  EXPECT_TRUE(State(run).Capture(false).ok()) << "the same tensor with other memory";
  auto other = std::make_shared<WeightModel>();
  run.trained.model = other;
  const absl::Status refused = State(run).Capture(false).status();
  EXPECT_THAT(std::string(refused.message()), HasSubstr("the model's parameter 'weight' is another tensor"));
  EXPECT_EQ(FailureKindOf(refused), FailureKind::kUserCode);
}

}  // namespace
}  // namespace athanor

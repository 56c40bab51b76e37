// The data of a run over its ranks; and windows that take micro-batches from it.
#include "athanor/runner/step/run_data.h"

#include <mutex>
#include <set>

#include "athanor/optim/optimizer.h"
#include "athanor/parallel/strategies/replicate_strategy.h"
#include "athanor/runner/step/update_window.h"
#include "athanor/torch/module_tensors.h"
#include "tests/unit/common/parallel/rank_threads.h"
#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::shared_ptr<Dataset> Numbers(int64_t count) {
  const torch::Tensor all = torch::arange(count).to(torch::kFloat32).unsqueeze(1);
  return *TensorDataset::Make(all, all);
}

class RunDataTest : public PartTest {
 protected:
  std::unique_ptr<RunData> Open(const nlohmann::json& changes = nlohmann::json::object()) {
    nlohmann::json config = {{"dataloader", {{"batch_size", 4}, {"num_workers", 0}, {"shuffle", false}}}};
    config.merge_patch(changes);
    auto data = std::make_unique<RunData>(
        &Context(config), std::map<std::string, std::shared_ptr<Dataset>>{{"train", Numbers(16)}, {"val", Numbers(5)}});
    status_ = data->Open(/*seed=*/1);
    if (status_.ok()) status_ = data->Reseat(Membership());
    return data;
  }
  absl::Status status_;
};

TEST_F(RunDataTest, EvaluatesWhatIsNotTrainedOn) {
  const auto data = Open();
  ASSERT_EQ(status_, absl::OkStatus());
  EXPECT_THAT(data->evaluated(), ElementsAre("val"));
  EXPECT_EQ(data->train().updates_per_pass(), 4);
  EXPECT_THAT(std::string(data->EvaluationLoader("dev").status().message()), HasSubstr("the splits are: train, val"));
  Open({{"dataloader", {{"dev", {{"batch_size", 2}}}}}});
  EXPECT_THAT(std::string(status_.message()), HasSubstr("dataloader.dev: no such split"));
}

// Two ranks go on where one was: what is left of the pass is divided between them, and nothing comes twice.
TEST_F(RunDataTest, OtherRanksGoOnWhereTheseWere) {
  const auto alone = Open();
  ASSERT_TRUE(alone->train().Next().ok());
  const nlohmann::json position = alone->train().StateDict();
  std::mutex mutex;
  std::multiset<float> seen;
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    RunContext context(context_->config, Membership(), torch::kCPU, nullptr);
    RunData data(&context, {{"train", Numbers(16)}});
    ASSERT_EQ(data.Open(1), absl::OkStatus());
    ASSERT_EQ(data.Reseat(Membership()), absl::OkStatus());
    ASSERT_EQ(data.LoadPosition(position, 1), absl::OkStatus());
    EXPECT_FALSE(data.uneven_ranks());
    ASSERT_EQ(data.Reseat(group), absl::OkStatus());
    while (!data.train().pass_ends()) {
      const torch::Tensor batch = data.train().Next()->input;
      const std::lock_guard<std::mutex> lock(mutex);
      for (int64_t i = 0; i < batch.size(0); ++i) seen.insert(batch[i].item<float>());
    }
  });
  EXPECT_EQ(seen.size(), 12u);
  EXPECT_EQ(std::set<float>(seen.begin(), seen.end()).size(), 12u);
  EXPECT_EQ(seen.count(3.f), 0u) << "the first four were trained on before";
}

// A model of one weight, whose steps do as a TorchRunner's.
class Steps : public TorchSteps {
 public:
  StepOutput TrainStep(const Batch& batch) override {
    StepOutput output;
    for (int i = 0; i < accumulations; ++i) {
      output.loss = (weight * batch.input).mean();
      window->Accumulate(output, batch);
    }
    return output;
  }
  StepOutput EvaluateStep(const Batch& batch) override { return {.loss = batch.input.mean()}; }
  torch::Tensor InferStep(const Batch& batch) override { return batch.input; }
  void Backward(const torch::Tensor& loss) override { loss.backward(); }
  absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>& by) override {
    factor = std::get<double>(by);
    gradient = weight.grad().item<double>();
    return true;
  }
  UpdateWindow* window = nullptr;
  torch::Tensor weight = torch::ones({1}, torch::requires_grad());
  int accumulations = 1;
  double factor = 0, gradient = 0;
};

class UpdateWindowTest : public RunDataTest {
 protected:
  struct Model : torch::nn::Module {
    explicit Model(const torch::Tensor& weight) { register_parameter("weight", weight); }
  };
  void Make(const nlohmann::json& changes) {
    data_ = Open(changes);
    trained_.model = std::make_shared<Model>(steps_.weight);
    trained_.strategy = std::make_unique<ReplicateStrategy>(trained_.model.get(), GradientReducerOptions());
    trained_.optimizer = *MakeOptimizer(context_->config.optim, DistinctParameters(*trained_.model));
    trained_.container = std::make_unique<OptimizerContainer>(
        trained_.optimizer.get(), OptimizerContainerOptions{.zero_grad = [this] { trained_.DropGradients(); }});
    window_ = std::make_unique<UpdateWindow>(context_.get(), &trained_, data_.get(), &steps_, &measures_);
    steps_.window = window_.get();
    ASSERT_EQ(window_->Reseat(Membership()), absl::OkStatus());
  }

  Steps steps_;
  TrainedModel trained_;
  RunMeasures measures_{{"train"}};
  std::unique_ptr<RunData> data_;
  std::unique_ptr<UpdateWindow> window_;
};

TEST_F(UpdateWindowTest, AWindowIsTheMeanOverItsSamples) {
  Make({{"accum_steps", 3}});
  StepResult first, second;
  ASSERT_EQ(window_->Run(false, &first), absl::OkStatus());
  EXPECT_EQ(first.micro_batches, 3);
  EXPECT_EQ(first.samples, 12);
  EXPECT_DOUBLE_EQ(steps_.gradient * steps_.factor, 5.5) << "the mean of 0 .. 11";
  trained_.DropGradients();
  data_->train().Advance(1);
  ASSERT_EQ(window_->Run(false, &second), absl::OkStatus());
  EXPECT_EQ(second.micro_batches, 1) << "what is left of the pass";
  EXPECT_DOUBLE_EQ(steps_.gradient * steps_.factor, 13.5);
  EXPECT_DOUBLE_EQ(measures_.ReadOut(Membership())->at("train").at("loss"), 7.5);
}

TEST_F(UpdateWindowTest, AStepThatAccumulatesTwiceIsNamed) {
  Make(nlohmann::json::object());
  steps_.accumulations = 2;
  StepResult result;
  EXPECT_THAT(std::string(window_->Run(false, &result).message()),
              HasSubstr("TrainStep() must call Accumulate() once; it did so 2 times"));
}

// A smaller scale is looked for without a fault of the model; the factor takes the scale away again.
TEST_F(UpdateWindowTest, TheScaleOfFloat16LossesIsTakenAwayAgain) {
  Make(nlohmann::json::object());
  trained_.scale = GradientScale(/*enabled=*/true);
  StepResult result;
  ASSERT_EQ(window_->Run(false, &result), absl::OkStatus());
  EXPECT_DOUBLE_EQ(steps_.gradient, 1.5 * trained_.scale.scale());
  EXPECT_DOUBLE_EQ(steps_.gradient * steps_.factor, 1.5);
  EXPECT_FALSE(result.scale_search) << "this update was made";
}

}  // namespace
}  // namespace athanor

// The parts that run a model's steps, over a model of one weight w: the loss is the mean of (w - x)^2.
#pragma once

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "athanor/optim/optimizer.h"
#include "athanor/parallel/strategies/replicate_strategy.h"
#include "athanor/runner/step/run_data.h"
#include "athanor/runner/step/torch_steps.h"
#include "athanor/runner/step/trained_model.h"
#include "athanor/runner/step/update_window.h"
#include "athanor/torch/module_tensors.h"
#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {

struct WeightModel : torch::nn::Module {
  WeightModel() { weight = register_parameter("weight", torch::ones({1})); }
  torch::Tensor weight;
};

class WeightSteps : public TorchSteps {
 public:
  explicit WeightSteps(WeightModel* model) : model_(model) {}
  StepOutput TrainStep(const Batch& batch) override {
    StepOutput output = Loss(batch);
    window->Accumulate(output, batch);
    return output;
  }
  StepOutput EvaluateStep(const Batch& batch) override {
    training_in_evaluation = training_in_evaluation || model_->is_training() || torch::GradMode::is_enabled();
    return Loss(batch);
  }
  torch::Tensor InferStep(const Batch& batch) override {
    if (scalar_predictions) return batch.input.sum();
    return model_->weight.detach() * batch.input;
  }
  void Backward(const torch::Tensor& loss) override { loss.backward(); }
  absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>&) override { return true; }

  UpdateWindow* window = nullptr;
  int calls = 0, fails_at = -1;  // the call that throws
  bool training_in_evaluation = false, scalar_predictions = false;

 private:
  StepOutput Loss(const Batch& batch) {
    if (calls++ == fails_at) throw std::runtime_error("out of luck");
    return {.loss = (model_->weight - batch.input).square().mean()};
  }
  WeightModel* const model_;
};

// What a TorchRunner would own, for the numbers 0 .. `count` - 1 in their order and 0 .. 4 as "val".
struct WeightRun {
  static std::shared_ptr<Dataset> Numbers(int64_t count) {
    const torch::Tensor all = torch::arange(count).to(torch::kFloat32).unsqueeze(1);
    return *TensorDataset::Make(all, all);
  }

  WeightRun(RunContext* run, const Membership& members, int64_t count)
      : context(run), data(run, {{"train", Numbers(count)}, {"val", Numbers(5)}}) {
    run->members = members;
    trained.model = model;
    trained.strategy = std::make_unique<ReplicateStrategy>(model.get(), GradientReducerOptions());
    EXPECT_EQ(trained.strategy->Reseat(members), absl::OkStatus());
    trained.optimizer = *MakeOptimizer(run->config.optim, DistinctParameters(*model));
    trained.container = std::make_unique<OptimizerContainer>(
        trained.optimizer.get(), OptimizerContainerOptions{.zero_grad = [this] { trained.DropGradients(); }});
    steps.window = &window;
    EXPECT_EQ(data.Open(/*seed=*/1), absl::OkStatus());
    EXPECT_EQ(data.Reseat(members), absl::OkStatus());
    EXPECT_EQ(window.Reseat(members), absl::OkStatus());
  }

  RunContext* const context;
  std::shared_ptr<WeightModel> model = std::make_shared<WeightModel>();
  WeightSteps steps{model.get()};
  TrainedModel trained;
  RunData data;
  RunMeasures measures{{"train"}};
  UpdateWindow window{context, &trained, &data, &steps, &measures};
};

class WeightRunTest : public PartTest {
 protected:
  static nlohmann::json Changes(const nlohmann::json& more = nlohmann::json::object()) {
    nlohmann::json config = {{"sched", nullptr},
                             {"dataloader", {{"batch_size", 4}, {"num_workers", 0}, {"shuffle", false}}}};
    config.merge_patch(more);
    return config;
  }
  WeightRun& Make(const nlohmann::json& more = nlohmann::json::object(), int64_t count = 16) {
    run_ = std::make_unique<WeightRun>(&Context(Changes(more)), Membership(), count);
    return *run_;
  }
  std::unique_ptr<WeightRun> run_;
};

}  // namespace athanor

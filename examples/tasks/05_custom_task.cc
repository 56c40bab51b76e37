// A task of one's own, built as a shared object: fits y = sin(3 x) + x / 2 with a small network, on data made in the
// program.
//
//   task: {name: custom_sine, library: /absolute/path/libcustom_task.so, options: {points: 512, hidden: 32}}
//
// CMake: athanor_task_library(custom_task 05_custom_task.cc). The trainer loads the library; the line at the end
// registers the task.
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/task/task.h"
#include "athanor/task/task_options.h"

namespace {

class SineTask : public athanor::Task {
 public:
  absl::Status Setup(const athanor::TaskContext& context) override {
    athanor::TaskOptions options("custom_sine", context.options);
    const int64_t points = options.Integer("points", 512, 8, 1 << 20);
    const int64_t hidden = options.Integer("hidden", 32, 1, 4096);
    RETURN_IF_ERROR(options.Check());

    const torch::Tensor x = torch::linspace(-2, 2, points).unsqueeze(1);
    const torch::Tensor y = torch::sin(3 * x) + x / 2;
    ASSIGN_OR_RETURN(datasets_["train"], athanor::TensorDataset::Make(x, y));
    ASSIGN_OR_RETURN(datasets_["test"],
                     athanor::TensorDataset::Make(x.slice(0, 1, points, 7) + 0.001, y.slice(0, 1, points, 7)));
    model_ = torch::nn::Sequential(torch::nn::Linear(1, hidden), torch::nn::Tanh(), torch::nn::Linear(hidden, hidden),
                                   torch::nn::Tanh(), torch::nn::Linear(hidden, 1));
    return absl::OkStatus();
  }

  std::shared_ptr<torch::nn::Module> Model() override { return model_.ptr(); }
  std::map<std::string, std::shared_ptr<athanor::Dataset>> Datasets() override { return datasets_; }

  athanor::StepOutput Forward(const athanor::Batch& batch) override {
    const torch::Tensor error = model_->forward(batch.input) - batch.target;
    return {.loss = error.square().mean(), .metrics = {{"absolute_error", error.detach().abs().mean()}}};
  }

 private:
  torch::nn::Sequential model_{nullptr};
  std::map<std::string, std::shared_ptr<athanor::Dataset>> datasets_;
};

}  // namespace

ATHANOR_REGISTER_TASK("custom_sine", SineTask);

// digits_mlp: a multi-layer perceptron for tables of numbers, as the 8 x 8 handwritten digits. Options besides those of
// labelled_data.h (scale: default 16):
//
//   hidden   widths of the hidden layers, a number or a list. Default [256, 256]
//   dropout  0 to 0.95, after each hidden layer. Default 0
//   noise    standard deviation of normal noise on the scaled inputs in training. Default 0
//   inputs   numbers a sample. Default 64
//   classes  Default 10
//
// Splits "train" and "test"; metric "accuracy".
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>

#include "athanor/base/status_macros.h"
#include "athanor/torch/fp8_linear.h"
#include "worker/tasks/builtin_tasks.h"
#include "worker/tasks/classification.h"
#include "worker/tasks/labelled_data.h"

namespace athanor {
namespace {

class DigitsMlp : public ClassificationTask {
 public:
  absl::Status Setup(const TaskContext& context) override {
    TaskOptions options("digits_mlp", context.options);
    LabelledDataOptions data = ReadLabelledDataOptions(options, 16);
    const std::vector<int64_t> hidden = options.Integers("hidden", {256, 256}, 1, 65536, 16);
    const double dropout = options.Number("dropout", 0, 0, 0.95);
    noise_ = options.Number("noise", 0, 0, 100);
    const int64_t inputs = options.Integer("inputs", 64, 1, 1 << 24);
    data.classes = options.Integer("classes", 10, 2, 1 << 20);
    ReadMetricsOption(&options, data.classes);
    data.sample_shape = {inputs};
    RETURN_IF_ERROR(options.Check());
    ASSIGN_OR_RETURN(datasets_, LoadLabelledData(data));

    int64_t width = inputs;
    for (int64_t next : hidden) {
      model_->push_back(Fp8Linear(width, next));
      model_->push_back(torch::nn::ReLU());
      if (dropout > 0) model_->push_back(torch::nn::Dropout(dropout));
      width = next;
    }
    model_->push_back(Fp8Linear(width, data.classes));
    return absl::OkStatus();
  }

  std::shared_ptr<torch::nn::Module> Model() override { return model_.ptr(); }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }
  StepOutput Forward(const Batch& batch) override {
    const bool noisy = noise_ > 0 && model_->is_training();
    const torch::Tensor input = noisy ? batch.input + noise_ * torch::randn_like(batch.input) : batch.input;
    return Classified(model_->forward(input), batch.target);
  }

 private:
  double noise_ = 0;
  torch::nn::Sequential model_;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeDigitsMlp() {
  return std::make_unique<DigitsMlp>();
}

}  // namespace athanor

// torchscript: trains a module that Python saved with torch.jit.save(torch.jit.script(model)) or torch.jit.trace. Its
// forward takes the batch's input and gives logits or predictions. Options besides those of labelled_data.h and
// classification.h (scale: default 1):
//
//   module        the saved file
//   loss          cross_entropy (targets are class numbers) or mse. Default cross_entropy
//   classes       with cross_entropy: how many the module tells apart
//   sample_shape  shape of one sample as forward expects it. Default: as it lies in the data file
//
// Splits "train" and "test"; metric "accuracy" with cross_entropy.
#include <torch/script.h>
#include <torch/torch.h>

#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "worker/tasks/builtin_tasks.h"
#include "worker/tasks/classification.h"
#include "worker/tasks/labelled_data.h"

namespace athanor {
namespace {

// Shows a script module to the runner as an ordinary one: the same tensors under the names that they have in Python.
class ScriptTree : public torch::nn::Module {
 public:
  explicit ScriptTree(torch::jit::Module script) : script_(std::move(script)) {
    for (const auto& item : script_.named_parameters(/*recurse=*/false)) {
      register_parameter(item.name, item.value, item.value.requires_grad());
    }
    for (const auto& item : script_.named_buffers(/*recurse=*/false)) register_buffer(item.name, item.value);
    for (const auto& item : script_.named_children()) {
      register_module(item.name, std::make_shared<ScriptTree>(item.value));
    }
  }

  void train(bool on = true) override {
    torch::nn::Module::train(on);
    script_.train(on);
  }
  torch::Tensor forward(const torch::Tensor& input) { return script_.forward({input}).toTensor(); }

 private:
  torch::jit::Module script_;
};

absl::Status CheckReadable(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("task.options.module: cannot read ", path, ": ", strerror(errno)));
  char start[4] = {};
  file.read(start, sizeof(start));
  if (!file || std::memcmp(start, "PK\x03\x04", 4) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("task.options.module: ", path, " is not a TorchScript file; write it with torch.jit.save()"));
  }
  return absl::OkStatus();
}

// The first line: LibTorch adds its own stack.
std::string FirstLine(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

absl::StatusOr<std::shared_ptr<ScriptTree>> LoadModule(const std::string& path, const torch::Device& device) {
  RETURN_IF_ERROR(CheckReadable(path));
  try {
    auto tree = std::make_shared<ScriptTree>(torch::jit::load(path, device));
    if (tree->parameters().empty()) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.module: ", path, " has no parameters to train"));
    }
    return tree;
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "task.options.module: ", path, " is not a TorchScript file of torch.jit.save(): ", FirstLine(error)));
  }
}

class TorchScriptTask : public ClassificationTask {
 public:
  absl::Status Setup(const TaskContext& context) override {
    TaskOptions options("torchscript", context.options);
    LabelledDataOptions data = ReadLabelledDataOptions(options, 1);
    const std::string path = options.RequiredText("module");
    classify_ = options.Choice("loss", "cross_entropy", {"cross_entropy", "mse"}) == "cross_entropy";
    const int64_t classes = options.Integer("classes", 0, 2, 1 << 20);
    data.sample_shape = options.Integers("sample_shape", {}, 1, 1 << 24, 8);
    if (classify_ && classes == 0) options.Complain("classes", "missing; cross_entropy needs it");
    if (!classify_ && classes != 0) options.Complain("classes", "belongs to cross_entropy only");
    data.classes = classify_ ? classes : 0;
    ReadMetricsOption(&options, data.classes);
    RETURN_IF_ERROR(options.Check());
    ASSIGN_OR_RETURN(model_, LoadModule(path, context.device));
    ASSIGN_OR_RETURN(datasets_, LoadLabelledData(data));
    return TryForward(path, context.device, classes);
  }

  std::shared_ptr<torch::nn::Module> Model() override { return model_; }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }

  StepOutput Forward(const Batch& batch) override {
    const torch::Tensor output = model_->forward(batch.input);
    if (classify_) return Classified(output, batch.target);
    StepOutput result;
    result.loss = torch::mse_loss(output, batch.target.view_as(output));
    return result;
  }

 private:
  // A module that does not fit its data is found before any rank waits for another.
  absl::Status TryForward(const std::string& path, const torch::Device& device, int64_t classes) {
    ASSIGN_OR_RETURN(Batch batch, datasets_["train"]->Get({0}));
    torch::NoGradGuard no_grad;
    torch::Tensor output;
    model_->eval();
    try {
      output = model_->forward(batch.input.to(device));
    } catch (const std::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.module: forward of ", path,
                                                     " fails on one sample of shape [",
                                                     absl::StrJoin(batch.input.sizes(), ", "), "]: ", error.what()));
    }
    model_->train();
    const bool fits = classify_ ? output.dim() == 2 && output.size(0) == 1 && output.size(1) == classes
                                : output.numel() == batch.target.numel();
    if (fits) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("task.options.module: forward of ", path, " gives shape [", absl::StrJoin(output.sizes(), ", "),
                     "] for one sample; needed: ",
                     classify_ ? absl::StrCat("[1, ", classes, "]")
                               : absl::StrCat(batch.target.numel(), " numbers, as the target")));
  }

  bool classify_ = true;
  std::shared_ptr<ScriptTree> model_;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeTorchScriptTask() {
  return std::make_unique<TorchScriptTask>();
}

}  // namespace athanor

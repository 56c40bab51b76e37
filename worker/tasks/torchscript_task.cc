// torchscript: trains a module that Python saved with torch.jit.save(torch.jit.script(model)) or torch.jit.trace. Its
// forward takes the batch's input, and the `input_files` by the names of its arguments. Options besides those of
// labelled_data.h and classification.h (scale: default 1):
//
//   module        the saved file
//   loss          a mean over the batch of what forward gives and the targets: cross_entropy (class numbers against
//                 N x classes, or N x length x classes for tokens), nll (the same of log-probabilities),
//                 bce_with_logits, mse, l1, huber; or module: the module's own method loss(output, target), exported
//                 with @torch.jit.export. Default cross_entropy
//   loss_module   in place of `loss`: a saved module whose forward(output, target) gives the loss
//   classes       how many the module tells apart; needed for cross_entropy and nll. With a loss of one's own it adds
//                 the metrics of classes. Of tokens: the vocabulary
//   sample_shape  shape of one sample as forward expects it. Default: as it lies in the data file
//   input_type    float32, or natural: int64 where the file holds integers. Default float32; tokens are int64
//
// A method metrics(output, target) -> Dict[str, Tensor] of the module, exported, adds means over the batch. Metric
// "accuracy" with classes. Splits "train", "val" and "test", as the data options say.
#include <torch/script.h>
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "worker/tasks/builtin_tasks.h"
#include "worker/tasks/classification.h"
#include "worker/tasks/labelled_data.h"
#include "worker/tasks/one_sample.h"
#include "worker/tasks/script_module.h"

namespace athanor {
namespace {

using torch::jit::IValue;

bool OfClasses(const std::string& loss) {
  return loss == "cross_entropy" || loss == "nll";
}

// What a script gave as its loss.
torch::Tensor Scalar(const IValue& value) {
  TORCH_CHECK(value.isTensor() && value.toTensor().numel() == 1 && value.toTensor().is_floating_point(),
              "the script's loss gives ", value.tagKind(),
              value.isTensor() ? c10::str(" ", value.toTensor().sizes()) : "",
              "; needed: one floating-point number as a tensor");
  return value.toTensor();
}

torch::Tensor Output(const IValue& value) {
  TORCH_CHECK(value.isTensor(), "forward gives ", value.tagKind(),
              "; needed: a tensor, or a loss of the script's own that takes it");
  return value.toTensor();
}

class TorchScriptTask : public ClassificationTask {
 public:
  absl::Status Setup(const TaskContext& context) override {
    TaskOptions options("torchscript", context.options);
    LabelledDataOptions data = ReadLabelledDataOptions(options, 1, {.tokens = true, .several_inputs = true});
    path_ = options.RequiredText("module");
    const std::string loss_path = options.Text("loss_module", "");
    loss_ = options.Choice("loss", loss_path.empty() ? "cross_entropy" : "",
                           {"cross_entropy", "nll", "bce_with_logits", "mse", "l1", "huber", "module"});
    const int64_t classes = options.Integer("classes", 0, 2, 1 << 20);
    data.sample_shape = options.Integers("sample_shape", {}, 1, 1 << 24, 8);
    const bool natural = options.Choice("input_type", "float32", {"float32", "natural"}) == "natural";
    if (!loss_path.empty() && !loss_.empty()) options.Complain("loss", "excludes loss_module");
    const bool own = loss_ == "module" || !loss_path.empty();
    if (OfClasses(loss_) && classes == 0) options.Complain("classes", absl::StrCat("missing; ", loss_, " needs it"));
    if (!OfClasses(loss_) && !own && classes != 0)
      options.Complain("classes", "belongs to cross_entropy, nll and losses of the module's own");
    if (natural && data.scale != 1) options.Complain("scale", "belongs to inputs of float32");
    if (natural) data.input_type.reset();
    data.classes = classes;
    if (own) data.target_type.reset();
    ReadMetricsOption(&options, classes);
    std::vector<std::string> named;
    for (const auto& [name, file] : data.input_files) named.push_back(name);
    const auto load = [&]() -> absl::Status {
      RETURN_IF_ERROR(LoadModules(context.device, loss_path));
      return model_->CheckInputs(named);
    };
    RETURN_IF_ERROR(options.Check(load));
    RETURN_IF_ERROR(load());
    ASSIGN_OR_RETURN(datasets_, LoadLabelledData(data));
    return TryForward(context.device);
  }

  std::shared_ptr<torch::nn::Module> Model() override { return model_; }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }

  StepOutput Forward(const Batch& batch) override {
    const IValue output = model_->Run({batch.input}, batch.more);
    StepOutput result;
    result.loss = Loss(output, batch.target);
    if (classes() > 0 && output.isTensor() && output.toTensor().size(-1) == classes())
      Measure(output.toTensor().reshape({-1, classes()}), batch.target.flatten(), &result);
    if (!has_metrics_) return result;
    const torch::NoGradGuard no_grad;
    const IValue found = model_->Call("metrics", {output, batch.target});
    TORCH_CHECK(found.isGenericDict(), "metrics() gives ", found.tagKind(), "; needed: Dict[str, Tensor]");
    for (const auto& item : found.toGenericDict()) {
      TORCH_CHECK(item.value().isTensor(), "metrics() gives ", item.value().tagKind(),
                  " for one name; needed: a tensor");
      result.metrics[item.key().toStringRef()] = item.value().toTensor().detach();
    }
    return result;
  }

 private:
  absl::Status LoadModules(const torch::Device& device, const std::string& loss_path) {
    ASSIGN_OR_RETURN(model_, ScriptModule::Load(path_, device));
    if (model_->parameters().empty())
      return absl::InvalidArgumentError(absl::StrCat("task.options.module: ", path_, " has no parameters to train"));
    if (loss_ == "module" && !model_->Has("loss")) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.loss: ", path_,
                                                     " has no method loss(output, target); mark it in Python with "
                                                     "@torch.jit.export"));
    }
    has_metrics_ = model_->Has("metrics");
    if (loss_path.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(loss_module_, ScriptModule::Load(loss_path, device, "loss_module"));
    if (loss_module_->parameters().empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("task.options.loss_module: ", loss_path, " has parameters, which nothing would train"));
  }

  torch::Tensor Loss(const IValue& value, const torch::Tensor& target) {
    if (loss_module_ != nullptr) return Scalar(loss_module_->Run({value, target}, {}));
    if (loss_ == "module") return Scalar(model_->Call("loss", {value, target}));
    const torch::Tensor output = Output(value);
    if (OfClasses(loss_)) {
      const torch::Tensor rows = output.reshape({-1, classes()}), labels = target.flatten();
      return loss_ == "nll" ? torch::nll_loss(rows, labels) : torch::cross_entropy_loss(rows, labels);
    }
    const torch::Tensor wanted = target.view_as(output);
    if (loss_ == "bce_with_logits") return torch::binary_cross_entropy_with_logits(output, wanted);
    if (loss_ == "l1") return torch::l1_loss(output, wanted);
    return loss_ == "huber" ? torch::huber_loss(output, wanted) : torch::mse_loss(output, wanted);
  }

  // A module that does not fit its data is found before any rank waits for another.
  absl::Status TryForward(const torch::Device& device) {
    ASSIGN_OR_RETURN(const Batch batch, FirstSample(datasets_, device));
    model_->eval();
    IValue output;
    RETURN_IF_ERROR(TryOn(absl::StrCat("task.options.module: forward of ", path_, " fails on one sample of shape [",
                                       absl::StrJoin(batch.input.sizes(), ", "), "]"),
                          [&] { output = model_->Run({batch.input}, batch.more); }));
    RETURN_IF_ERROR(CheckOutput(output, batch.target));
    RETURN_IF_ERROR(TryOn("task.options.loss: the loss of one sample fails", [&] { Loss(output, batch.target); }));
    model_->train();
    return absl::OkStatus();
  }

  absl::Status CheckOutput(const IValue& value, const torch::Tensor& target) const {
    if (loss_module_ != nullptr || loss_ == "module") return absl::OkStatus();
    if (!value.isTensor()) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.module: forward of ", path_, " gives ",
                                                     value.tagKind(), "; needed: a tensor, or loss: module"));
    }
    const torch::Tensor& output = value.toTensor();
    const int64_t labels = target.numel();
    const bool fits = OfClasses(loss_) ? output.dim() >= 2 && output.size(-1) == classes() &&
                                             output.numel() == labels * classes() && output.size(0) == 1
                                       : output.numel() == labels;
    if (fits) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("task.options.module: forward of ", path_, " gives shape [",
                                                   absl::StrJoin(output.sizes(), ", "), "] for one sample; needed: ",
                                                   !OfClasses(loss_) ? absl::StrCat(labels, " numbers, as the target")
                                                   : labels == 1     ? absl::StrCat("[1, ", classes(), "]")
                                                                 : absl::StrCat("[1, ", labels, ", ", classes(), "]")));
  }

  std::string path_, loss_;
  bool has_metrics_ = false;
  std::shared_ptr<ScriptModule> model_, loss_module_;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeTorchScriptTask() {
  return std::make_unique<TorchScriptTask>();
}

}  // namespace athanor

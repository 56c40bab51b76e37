// train_step: trains a model and a loss of Python, compiled by scripts/export_train_step.py; no Python at run time.
// Options besides those of labelled_data.h (scale: default 1):
//
//   package  the folder that the script wrote. Shapes and dtypes of samples, classes and precision are the package's
//   metrics  with a package that tells classes apart (scores N x classes, targets of class numbers): also measure
//            auroc, auprc, acc_macro, f1_macro and mcc. Default false
//
// Splits "train" and "test"; metric "accuracy" with classes, and those of the model's own metrics(). Batches may have
// any length. The weights begin as the package's; runner.pretrained and checkpoints have their names. All gradients of
// a step are ready at once, so ranks exchange them after the step, not during it. runner.precision must be left out:
// the package computes as it was exported. CPU only.
#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "common/service/job_limits.h"
#include "worker/tasks/builtin_tasks.h"
#include "worker/tasks/classification.h"
#include "worker/tasks/labelled_data.h"
#include "worker/tasks/train_step_package.h"

namespace athanor {
namespace {

// Gives gradients that are known already to the parameters, where the graph's backward would: hooks, accumulation and
// scaled losses see no difference.
class KnownGradients : public torch::autograd::Function<KnownGradients> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList /*parameters*/,
                               TrainStepResult* result) {
    context->saved_data["gradients"] = std::exchange(result->gradients, {});
    return result->loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list outer) {
    TORCH_CHECK(context->saved_data.count("gradients") > 0, "backward() through a train step runs once only");
    torch::autograd::variable_list gradients = context->saved_data["gradients"].toTensorVector();
    context->saved_data.clear();  // a gradient with one owner is taken over, not copied
    if (outer[0].item<double>() != 1) {
      for (torch::Tensor& gradient : gradients) gradient = gradient * outer[0].to(gradient.scalar_type());
    }
    gradients.emplace_back();  // for `result`
    return gradients;
  }
};

class TrainStepTask : public ClassificationTask {
 public:
  absl::Status Setup(const TaskContext& context) override {
    if (context.precision != "" && context.precision != "fp32") {
      return absl::InvalidArgumentError(
          absl::StrCat("runner.precision: found \"", context.precision, "\" ", kTrainStepPrecision));
    }
    TaskOptions options("train_step", context.options);
    LabelledDataOptions data = ReadLabelledDataOptions(options, 1);
    const std::string path = options.RequiredText("package");
    absl::StatusOr<TrainStepManifest> manifest = absl::InvalidArgumentError("");
    if (!path.empty()) manifest = ReadTrainStepManifest(path);
    ReadMetricsOption(&options, manifest.ok() ? manifest->classes : 2);
    RETURN_IF_ERROR(options.Check());
    RETURN_IF_ERROR(manifest.status());
    if (!context.device.is_cpu()) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.package: found a rank on ", context.device.str(),
                                                     "; allowed: resources.device cpu"));
    }
    data.sample_shape = manifest->input.shape;
    data.classes = manifest->classes;
    ASSIGN_OR_RETURN(package_, TrainStepPackage::Load(*std::move(manifest)));
    ASSIGN_OR_RETURN(datasets_, LoadLabelledData(data));
    return TryEvaluate(data);
  }

  std::shared_ptr<torch::nn::Module> Model() override { return package_->module(); }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }

  StepOutput Forward(const Batch& batch) override {
    TORCH_CHECK(!at::autocast::is_autocast_enabled(at::kCPU), "runner.precision ", kTrainStepPrecision);
    const bool training = package_->module()->is_training();
    TrainStepResult result =
        training ? package_->Train(batch.input, batch.target) : package_->Evaluate(batch.input, batch.target);
    StepOutput output;
    output.loss =
        training ? KnownGradients::apply(at::TensorList(package_->trainable()), &result) : std::move(result.loss);
    if (result.scores.defined()) Measure(result.scores, batch.target, &output);
    for (const auto& [name, value] : result.metrics) output.metrics[name] = value;
    return output;
  }

 private:
  // A package that does not fit its data is found before any rank waits for another.
  absl::Status TryEvaluate(const LabelledDataOptions& data) {
    ASSIGN_OR_RETURN(Batch batch, datasets_["train"]->Get({0}));
    const TrainStepManifest& manifest = package_->manifest();
    const int64_t wanted = c10::multiply_integers(manifest.target.shape);
    if (batch.target.numel() != wanted) {
      return absl::InvalidArgumentError(absl::StrCat(
          "task.options.data: ", data.data, " has targets of ", batch.target.numel(), " numbers a sample; ",
          manifest.folder, " takes shape [", absl::StrJoin(manifest.target.shape, ", "), "]"));
    }
    try {
      package_->Evaluate(batch.input, batch.target);
    } catch (const std::exception& error) {
      return absl::InvalidArgumentError(
          absl::StrCat("task.options.package: ", manifest.folder, " fails on one sample: ", error.what()));
    }
    return absl::OkStatus();
  }

  std::unique_ptr<TrainStepPackage> package_;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeTrainStepTask() {
  return std::make_unique<TrainStepTask>();
}

}  // namespace athanor

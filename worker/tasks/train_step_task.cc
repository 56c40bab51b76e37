// train_step: trains a model and a loss of Python, compiled by scripts/export_train_step.py; no Python at run time.
// Options besides those of labelled_data.h (scale: default 1; block_size: the package's), with the `input_files` that
// the package's model takes:
//
//   package  the folder that the script wrote. Shapes and dtypes of samples, classes and precision are the package's
//   metrics  with a package that tells classes apart (scores N x classes, targets of class numbers): also measure
//            auroc, auprc, acc_macro, f1_macro and mcc. Default false
//
// Splits "train", "val" and "test", as the data options say; metric "accuracy" with classes, and those of the model's
// own metrics(). Batches may have any length. The weights begin as the package's; runner.pretrained and checkpoints
// have their names. All gradients of a step are ready at once, so ranks exchange them after the step, not during it.
// runner.precision must be left out: the package computes as it was exported. CPU only.
#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/contract/job_limits.h"
#include "worker/tasks/builtin_tasks.h"
#include "worker/tasks/classification.h"
#include "worker/tasks/labelled_data.h"
#include "worker/tasks/one_sample.h"
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
    const std::string path = options.RequiredText("package");
    absl::StatusOr<TrainStepManifest> manifest = absl::InvalidArgumentError("");
    if (!path.empty()) manifest = ReadTrainStepManifest(path);
    LabelledDataUse use{.tokens = true, .several_inputs = true};
    if (manifest.ok() && !manifest->input.shape.empty())
      use.block_size = std::max<int64_t>(manifest->input.shape[0], 1);
    LabelledDataOptions data = ReadLabelledDataOptions(options, 1, use);
    ReadMetricsOption(&options, manifest.ok() ? manifest->classes : 2);
    if (manifest.ok()) CheckInputs(*manifest, data, &options);
    RETURN_IF_ERROR(options.Check([&] {
      if (!manifest.ok()) return manifest.status();
      const absl::Status files = CheckTrainStepFiles(*manifest);
      return absl::IsNotFound(files) ? absl::DataLossError(files.message()) : files;  // the rest of the package is here
    }));
    RETURN_IF_ERROR(manifest.status());
    if (!context.device.is_cpu()) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.package: found a rank on ", context.device.str(),
                                                     "; allowed: resources.device cpu"));
    }
    data.sample_shape = manifest->input.shape;
    data.classes = manifest->classes;
    data.input_type = ReadAs(manifest->input);
    data.target_type = ReadAs(manifest->target);
    ASSIGN_OR_RETURN(package_, TrainStepPackage::Load(*std::move(manifest)));
    ASSIGN_OR_RETURN(datasets_, LoadLabelledData(data));
    return TryEvaluate(data);
  }

  std::shared_ptr<torch::nn::Module> Model() override { return package_->module(); }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }

  StepOutput Forward(const Batch& batch) override {
    TORCH_CHECK(!at::autocast::is_autocast_enabled(at::kCPU), "runner.precision ", kTrainStepPrecision);
    const bool training = package_->module()->is_training();
    TrainStepResult result = training ? package_->Train(batch) : package_->Evaluate(batch);
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
    ASSIGN_OR_RETURN(const Batch batch, FirstSample(datasets_, torch::kCPU));
    const TrainStepManifest& manifest = package_->manifest();
    const int64_t wanted = c10::multiply_integers(manifest.target.shape);
    if (batch.target.numel() != wanted) {
      return absl::InvalidArgumentError(absl::StrCat(
          "task.options.data: ", data.data, " has targets of ", batch.target.numel(), " numbers a sample; ",
          manifest.folder, " takes shape [", absl::StrJoin(manifest.target.shape, ", "), "]"));
    }
    return TryOn(absl::StrCat("task.options.package: ", manifest.folder, " fails on one sample"),
                 [&] { package_->Evaluate(batch); });
  }

  // What the data options name must be what the package's model takes.
  static void CheckInputs(const TrainStepManifest& manifest, const LabelledDataOptions& data, TaskOptions* options) {
    const bool whole = !c10::isFloatingType(manifest.input.dtype);
    if (whole && data.scale != 1) options->Complain("scale", "belongs to packages that take floating-point inputs");
    std::vector<std::string> taken;
    for (const auto& [name, sample] : manifest.more) taken.push_back(name);
    const std::string allowed = taken.empty() ? "none" : absl::StrJoin(taken, ", ");
    for (const auto& [name, path] : data.input_files) {
      if (!manifest.more.contains(name))
        options->Complain(absl::StrCat("input_files.", name),
                          absl::StrCat("the package takes no such input; allowed: ", allowed));
    }
    for (const std::string& name : taken) {
      if (!data.input_files.contains(name))
        options->Complain("input_files", absl::StrCat("missing: ", name, "; the package takes: ", allowed));
    }
  }

  // Whole numbers as the file has them: float32 would round them.
  static std::optional<torch::ScalarType> ReadAs(const TrainStepSample& sample) {
    return c10::isFloatingType(sample.dtype) ? std::optional(sample.dtype) : std::nullopt;
  }

  std::unique_ptr<TrainStepPackage> package_;
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeTrainStepTask() {
  return std::make_unique<TrainStepTask>();
}

}  // namespace athanor

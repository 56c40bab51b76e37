// What tasks that tell classes apart share: the loss, "accuracy", and the option
//
//   metrics  also measure auroc, auprc, acc_macro, f1_macro and mcc, exactly over all samples (all but mcc are means
//            over the classes). Default false
#pragma once

#include <torch/torch.h>

#include <memory>
#include <utility>
#include <vector>

#include "athanor/metrics/metric_factory.h"
#include "athanor/task/task.h"
#include "athanor/task/task_options.h"

namespace athanor {

class ClassificationTask : public Task {
 public:
  absl::StatusOr<std::unique_ptr<MetricSet>> Metrics(std::shared_ptr<MeterSync> sync) override {
    if (!measured_) return nullptr;
    std::vector<MetricFunc> metrics = DefaultMetrics(MetricTask::kMulticlass, classes_);
    for (MetricFunc& metric : metrics) {
      if (metric.name == "acc" || metric.name == "f1") metric.name += "_macro";  // "accuracy" is another number
    }
    return BuildMetrics({.type = "multiclass",
                         .num_classes = classes_,
                         .scores = Scores::kLogits,
                         .sync = std::move(sync),
                         .metrics = std::move(metrics)});
  }

 protected:
  // Reads the option; `classes` 0: the task does not classify.
  void ReadMetricsOption(TaskOptions* options, int64_t classes) {
    classes_ = classes;
    measured_ = options->Flag("metrics", false);
    if (measured_ && classes == 0) options->Complain("metrics", "belongs to models that tell classes apart");
  }

  int64_t classes() const { return classes_; }

  // Cross-entropy, and "accuracy": the share of samples whose largest logit is the target. `logits` N x classes,
  // `target` N, int64.
  StepOutput Classified(const torch::Tensor& logits, const torch::Tensor& target) const {
    StepOutput output;
    output.loss = torch::cross_entropy_loss(logits, target);
    Measure(logits, target, &output);
    return output;
  }

  // All but the loss.
  void Measure(const torch::Tensor& logits, const torch::Tensor& target, StepOutput* output) const {
    torch::NoGradGuard no_grad;
    output->metrics["accuracy"] = logits.argmax(1).eq(target).to(torch::kFloat32).mean();
    if (!measured_) return;
    output->scores = logits.detach();
    output->labels = target;
  }

 private:
  bool measured_ = false;
  int64_t classes_ = 0;
};

}  // namespace athanor

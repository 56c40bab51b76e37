// Samples of unequal sizes in memory; their batches are NestedTensors, without padding.
//
//   ASSIGN_OR_RETURN(auto train, RaggedDataset::Make(sequences, labels));            // sequences: std::vector<Tensor>
//   ASSIGN_OR_RETURN(auto more, OpenRaggedJsonLines("train.jsonl", {.input = "tokens", .target = "label"}));
//   ASSIGN_OR_RETURN(auto tagged, RaggedDataset::MakeWithRaggedTargets(sequences, tags));   // a tag for each token
//   options.datasets = {{"train", train}};
//   options.forward = [&](const Batch& batch) {
//     return StepOutput{.loss = Loss(net->forward(*batch.ragged), batch.target)};
//   };
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/data/formats/json_lines.h"

namespace athanor {

// Sample i is the tensor samples[i] (one rank and dtype, any sizes, on the CPU) with row i of `target` (may be
// undefined) or the tensor targets[i], of any size as well: a label for each token. Batch::ragged holds the samples in
// the order asked for, Batch::target or Batch::ragged_target their targets; Batch::input is undefined.
class RaggedDataset : public Dataset {
 public:
  // INVALID_ARGUMENT: no samples, of differing ranks or dtypes, not on the CPU, or another number of targets.
  static absl::StatusOr<std::shared_ptr<RaggedDataset>> Make(std::vector<torch::Tensor> samples, torch::Tensor target,
                                                             const NestedView& view = {});
  // `target_view`: how padded targets look; a padding_value that the loss ignores, such as -100, suits labels.
  static absl::StatusOr<std::shared_ptr<RaggedDataset>> MakeWithRaggedTargets(std::vector<torch::Tensor> samples,
                                                                              std::vector<torch::Tensor> targets,
                                                                              const NestedView& view = {},
                                                                              const NestedView& target_view = {});
  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override;  // OUT_OF_RANGE names the index
  bool may_leave_out() const override { return false; }

 private:
  explicit RaggedDataset(std::vector<torch::Tensor> samples) : samples_(std::move(samples)) {}

  std::vector<torch::Tensor> samples_;
  torch::Tensor target_;
  std::vector<torch::Tensor> targets_;
  NestedView view_, target_view_;
};

// Lines whose input is a list of any length: of numbers, or of lists that are equally long within the line. Inputs are
// int64 when every number of the file is whole, else float32; targets as in OpenJsonLines(), or lists of any length
// like the inputs. A line that does not fit is named: DATA_LOSS.
enum class TargetSizes { kOne, kAny };
absl::StatusOr<std::shared_ptr<RaggedDataset>> OpenRaggedJsonLines(const std::string& path, const FieldNames& names,
                                                                   TargetSizes targets = TargetSizes::kOne);

}  // namespace athanor

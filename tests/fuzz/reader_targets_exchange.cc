// Checkpoints of other programs, of which one file is not what it should be.
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "athanor/exchange/convert.h"
#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/reader_seeds.h"
#include "tests/fuzz/reader_targets.h"

namespace athanor::fuzz {
namespace {

constexpr Codes kCodes = {kDataLoss, kInvalid, absl::StatusCode::kNotFound};

void CheckSource(const std::string& folder, TensorFormat format) {
  const absl::StatusOr<std::unique_ptr<TensorSource>> source = OpenTensorSource(folder, format);
  if (!Accepted(source.status(), folder, kCodes)) return;
  int read = 0;
  for (const auto& [name, described] : (*source)->tensors()) {
    Promise((*source)->tensors().contains(described.same_as), "a tied weight has a first name");
    if (++read > 20) break;
    const absl::StatusOr<torch::Tensor> tensor = (*source)->Read(name);
    if (!Accepted(tensor.status(), folder, kCodes)) continue;
    CheckTensor(*tensor);
    Promise(tensor->sizes() == described.shape && tensor->scalar_type() == described.dtype,
            "it is as it was described");
  }
}

}  // namespace

void TorchDistributedMetadata(std::string_view input) {
  static const std::string folder = SampleTorchDistributed("dcp");
  Scratch("dcp/.metadata", input);
  CheckSource(folder, TensorFormat::kTorchDistributed);
}

void DeepSpeedPartition(std::string_view input) {
  static const std::string folder = SampleDeepSpeed("deepspeed");
  Scratch(absl::StrCat("deepspeed/", kDeepSpeedPartition), input);
  CheckSource(folder, TensorFormat::kDeepSpeed);
}

void DeepSpeedModel(std::string_view input) {
  static const std::string folder = SampleDeepSpeed("deepspeed_model");
  Scratch(absl::StrCat("deepspeed_model/", kDeepSpeedModel), input);
  CheckSource(folder, TensorFormat::kDeepSpeed);
}

}  // namespace athanor::fuzz

// Named tensors that somebody else has stored, read one after the other: what a folder or a file holds is known at
// once, a tensor's bytes are read when they are asked for.
//
//   ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenTensorSource("llama/", TensorFormat::kAuto));
//   for (const auto& [name, tensor] : source->tensors()) {
//     ASSIGN_OR_RETURN(torch::Tensor values, source->Read(name));
//   }
//
// Nothing in a file is executed: of pickles only known classes are read. Errors name the path: NOT_FOUND;
// INVALID_ARGUMENT for another kind of file; DATA_LOSS for damage. A source is used by one thread at a time.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

enum class TensorFormat {
  kAuto,              // by what is there; of what is to be written, by the ending
  kCheckpoint,        // a checkpoint's folder, or its name (athanor/checkpoint/alias_files.h)
  kSafetensors,       // one file
  kHuggingFace,       // a folder: model.safetensors, or its shards with an index; read: pytorch_model.bin too
  kTorchSave,         // one file of torch.save
  kTorchDistributed,  // a folder of torch.distributed.checkpoint
  kDeepSpeed,         // a folder of DeepSpeed, or of one of its tags; ZeRO stages 0 to 3; read only
};

// "auto", "athanor", "safetensors", "hf", "pt", "dcp", "deepspeed". INVALID_ARGUMENT says what is allowed.
absl::StatusOr<TensorFormat> ParseTensorFormat(const std::string& text);
const char* ToString(TensorFormat format);

// What is at `path`, by its name, its first bytes, or the files of a folder. INVALID_ARGUMENT for a folder of none of
// these.
absl::StatusOr<TensorFormat> DetectTensorFormat(const std::string& path);

struct SourceTensor {
  torch::ScalarType dtype = torch::kFloat;
  std::vector<int64_t> shape;
  std::string same_as;  // of tied weights the first name; else its own
  bool nested = false;  // lies in a dictionary within the outermost one, whose keys its name joins by dots
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  const std::map<std::string, SourceTensor>& tensors() const { return tensors_; }
  // What else is stored there: "epoch: an integer".
  const std::vector<std::string>& skipped() const { return skipped_; }
  // Names are those of a checkpoint: "model.<name>", "optim.<parameter>.<slot>", "ema.<name>".
  bool of_checkpoint() const { return of_checkpoint_; }
  TensorFormat format() const { return format_; }
  // One of tensors(): on the CPU, contiguous, memory of its own.
  virtual absl::StatusOr<torch::Tensor> Read(const std::string& name) = 0;

 protected:
  // Sets same_as of every tensor from keys that are equal for one and the same tensor.
  template <class Key>
  void Tie(const std::map<std::string, Key>& keys) {
    std::map<Key, std::string> first;
    for (auto& [name, tensor] : tensors_) {
      const auto key = keys.find(name);
      tensor.same_as = key == keys.end() ? name : first.emplace(key->second, name).first->second;
    }
  }

  std::map<std::string, SourceTensor> tensors_;
  std::vector<std::string> skipped_;
  bool of_checkpoint_ = false;
  TensorFormat format_ = TensorFormat::kAuto;
};

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensorSource(const std::string& path, TensorFormat format);

}  // namespace athanor

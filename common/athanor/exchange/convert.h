// Checkpoints from and for other programs: Athanor's own, one safetensors file, Hugging Face folders, files of
// torch.save, folders of torch.distributed.checkpoint; read only, folders of DeepSpeed. Any of them becomes any other,
// tensor by tensor: no more than one is in memory (of torch.save its storage too; of DeepSpeed all partitions).
// Values keep their bits unless `dtype` says otherwise. A checkpoint's checksums are verified as it is read, and made
// as one is written.
//
//   ASSIGN_OR_RETURN(ConvertReport report,
//                    ConvertTensors("run/checkpoints/best", "out/", {.format = TensorFormat::kHuggingFace}));
//   ASSIGN_OR_RETURN(report, ConvertTensors("dcp/", "imported/", {.format = TensorFormat::kCheckpoint}));
//
// Thread-safe for different targets. Blocks.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/exchange/tensor_source.h"

namespace athanor {

enum class TensorContent {
  kWeights,  // those of the model, under its own names
  kAll,      // "model.<name>", "optim.<parameter>.<slot>", "ema.<name>"
};

struct ConvertOptions {
  TensorFormat from = TensorFormat::kAuto;
  // What is written. kAuto: by the ending (.safetensors, .pt, .pth). Of folders it has to be said.
  TensorFormat format = TensorFormat::kAuto;
  TensorContent content = TensorContent::kWeights;  // a checkpoint is written with all that there is
  bool average = true;                              // of weights: their average (EMA) where there is one
  std::string dtype;  // of floating-point weights: "fp32", "fp16", "bf16", "fp64"; "" as they are
  // Applied in order to every name of the source, of a checkpoint without its "model." and the like: an ECMAScript
  // expression and its replacement ($1 …).
  std::vector<std::pair<std::string, std::string>> rename;
  int64_t max_shard_bytes = int64_t{5} << 30;  // of a Hugging Face folder's files
  int64_t step = 0;                            // of a checkpoint that is written
};

struct ConvertReport {
  TensorFormat from = TensorFormat::kAuto, to = TensorFormat::kAuto;
  std::string path;  // what was written: of a checkpoint its folder within `to`
  int64_t tensors = 0, bytes = 0;
  std::vector<std::string> skipped;  // of the source: "epoch: an integer", "rng: a tensor"
};

// `to` appears whole or not at all; of folders the file that makes it one comes last. NOT_FOUND, DATA_LOSS as
// OpenTensorSource(). INVALID_ARGUMENT: another ending, dtype or expression; two names become one; nothing to write.
// ALREADY_EXISTS: the folder holds a checkpoint or a model already.
absl::StatusOr<ConvertReport> ConvertTensors(const std::string& from, const std::string& to,
                                             const ConvertOptions& options);

// The weights of a source, all of them in memory, with the names of the model; tied ones as one tensor.
absl::StatusOr<std::map<std::string, torch::Tensor>> ReadWeightsOf(TensorSource& source, bool average = true,
                                                                   std::vector<std::string>* skipped = nullptr);

// What a tensor of a source is. Pure.
enum class TensorRole { kWeight, kAverage, kOptimizer, kOther };
struct PartName {
  TensorRole part = TensorRole::kOther;
  std::string name;  // without what said its part: "layers.0.weight", "layers.0.weight.exp_avg"
};
// In the order of `names`, each with whether it lies in a nested dictionary (SourceTensor::nested). Names of a
// checkpoint tell their part. Else the dictionaries do: "model", "module", "state_dict", "model_state_dict" hold
// weights, "ema" their average, "optim", "optimizer" the optimizer's state ("state.<parameter>.<slot>"). Without any of
// those all are weights.
std::vector<PartName> PartsOf(const std::vector<std::pair<std::string, bool>>& names, bool of_checkpoint);

}  // namespace athanor

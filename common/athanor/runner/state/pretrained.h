// Weights from elsewhere into a module: by name, with a report of what did not fit.
//
//   ASSIGN_OR_RETURN(TensorMap weights, ReadWeights("resnet18.pt"));
//   ASSIGN_OR_RETURN(WeightsReport report, LoadWeights(weights, {.rename = {{"^backbone\\.", ""}}}, model.get()));
//
// ReadWeights() takes a checkpoint's folder or name (its average of the weights where it holds one), a safetensors
// file, what torch.save wrote, or a folder of Hugging Face, torch.distributed.checkpoint or DeepSpeed; nothing is
// executed. Not thread-safe with respect to the module.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/training_state.h"

namespace athanor {

// Names as in PyTorch's state_dict(), without "model." or "ema.". `skipped`, where it is given: what stands in the file
// and is no tensor ("epoch: an integer"). NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT name the path.
absl::StatusOr<TensorMap> ReadWeights(const std::string& path, std::vector<std::string>* skipped = nullptr);

// "a, b, c, d, e and 7 more".
std::string ShortList(const std::vector<std::string>& names);

struct ExportOptions {
  std::string dtype;    // of floating-point tensors: "fp32", "fp16", "bf16", "fp64"; "" as they are
  bool average = true;  // the average of the weights (EMA) where there is one; else the weights themselves
};

// The weights at `from`, as for ReadWeights(), in one file for others: safetensors, or with the ending .pt or .pth what
// torch.load(weights_only=True) takes. Its names are those of the model, so that a PyTorch module of the same structure
// takes it as it is: `module.load_state_dict(safetensors.torch.load_file(path))`. The file appears whole or not at all.
// INVALID_ARGUMENT for another ending or dtype.
absl::Status ExportWeights(const std::string& from, const std::string& to, const ExportOptions& options = {});

struct WeightsOptions {
  // Applied in order to every name of the file: an ECMAScript expression and its replacement ($1 …). What wrappers of
  // Python have added goes by itself, where more names fit so: "module.", "_orig_mod." anywhere, "state_dict.model.",
  // "model_state_dict." and the like in front; of the average of the weights and the weights themselves the average is
  // taken.
  std::vector<std::pair<std::string, std::string>> rename;
  // How a tensor of the module gets its values; unset: they are copied into it.
  std::function<void(torch::Tensor target, const torch::Tensor& values)> write;
  bool strict = true;  // a tensor of the module without a partner, or of another shape, is an error
};

struct WeightsReport {
  std::vector<std::string> loaded, missing, unexpected;
  std::string prefix;                   // of the file's names that were taken: "state_dict.model."; "" none
  std::vector<std::string> mismatched;  // "fc.weight: [1000, 512] in the file, [10, 512] in the model"
  std::string ToString() const;         // one line; lists are cut after 5 names
};

// Copies tensors into the module's parameters and buffers, cast to their dtype and device. Strict: INVALID_ARGUMENT
// with the report, and the module is as it was.
absl::StatusOr<WeightsReport> LoadWeights(const TensorMap& weights, const WeightsOptions& options,
                                          torch::nn::Module* model);

}  // namespace athanor

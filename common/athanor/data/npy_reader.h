// NumPy's .npy and .npz files as tensors; one of two equal arrays as a dataset.
//
//   ASSIGN_OR_RETURN(torch::Tensor x, ReadNpy("x.npy"));
//   ASSIGN_OR_RETURN(auto arrays, ReadNpz("digits.npz"));            // {"x": …, "y": …}
//   ASSIGN_OR_RETURN(auto dataset, TensorDataset::Make(arrays.at("x"), arrays.at("y")));
//
// Little-endian and single-byte dtypes: f2 f4 f8 i1 i2 i4 i8 u1 b1 c8 c16, and u2, u4 widened to int32, int64.
// Row-major and column-major; tensors come back contiguous. Archives may be stored or deflated (savez,
// savez_compressed). Nothing is executed: object arrays are refused. DATA_LOSS names file, array and what is wrong;
// checksums are verified.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

absl::StatusOr<torch::Tensor> ReadNpy(const std::string& path);
absl::StatusOr<std::map<std::string, torch::Tensor>> ReadNpz(const std::string& path);

// `bytes` is a whole .npy file or .npz archive; `name` is for messages.
absl::StatusOr<torch::Tensor> ParseNpy(const std::string& name, const char* bytes, size_t size);
absl::StatusOr<std::map<std::string, torch::Tensor>> ParseNpz(const std::string& name, const char* bytes, size_t size);

// Row-major, version 1.0; NumPy opens them. Archives are stored, not deflated. INVALID_ARGUMENT for a dtype that NumPy
// has not (bfloat16, float8).
absl::Status WriteNpy(const std::string& path, const torch::Tensor& tensor);
absl::Status WriteNpz(const std::string& path, const std::map<std::string, torch::Tensor>& arrays);

}  // namespace athanor

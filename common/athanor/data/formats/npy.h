// NumPy's .npy and .npz files as tensors; one of two equal arrays as a dataset.
//
//   ASSIGN_OR_RETURN(torch::Tensor x, ReadNpy("x.npy"));
//   ASSIGN_OR_RETURN(auto arrays, ReadNpz("digits.npz"));            // {"x": …, "y": …}
//   ASSIGN_OR_RETURN(auto dataset, TensorDataset::Make(arrays.at("x"), arrays.at("y")));
//
// Dtypes of either byte order, in every spelling of numpy.dtype() ("<f4", "f", "float32", "single"): f2 f4 f8 i1 i2 i4
// i8 u1 b1 c8 c16; u2 and u4 are widened to int32 and int64, u8 becomes int64 (a value of 2^63 and more is damage). As
// in numpy.load, bytes behind the array are passed over. Format versions 1 to 3, headers of any spacing and quotes,
// also those of Python 2. Row-major and column-major; tensors come back contiguous. Archives may be stored or deflated
// (savez, savez_compressed). Nothing is executed: object arrays are refused. DATA_LOSS names file, array and what is
// wrong; checksums are verified.
#pragma once

#include <torch/torch.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace athanor {

absl::StatusOr<torch::Tensor> ReadNpy(const std::string& path);
absl::StatusOr<std::map<std::string, torch::Tensor>> ReadNpz(const std::string& path);

// What a header says, whether or not the dtype is one of those above.
struct NpyLayout {
  std::string dtype;  // as it is written: "<f4", "float32"
  bool fortran = false;
  std::vector<int64_t> shape;
  size_t begin = 0;  // of the elements, bytes from the file's begin
};
absl::StatusOr<NpyLayout> ParseNpyLayout(const std::string& name, const char* bytes, size_t size);
struct NpyDtype {
  torch::ScalarType type;
  bool big_endian = false;
};
std::optional<NpyDtype> ParseNpyDtype(absl::string_view dtype);  // unset: none of those above

// `bytes` is a whole .npy file or .npz archive; `name` is for messages.
absl::StatusOr<torch::Tensor> ParseNpy(const std::string& name, const char* bytes, size_t size);
absl::StatusOr<std::map<std::string, torch::Tensor>> ParseNpz(const std::string& name, const char* bytes, size_t size);

// Row-major, version 1.0, little-endian; NumPy opens them. Archives are stored, not deflated. INVALID_ARGUMENT for a
// dtype that NumPy has not (bfloat16, float8).
absl::Status WriteNpy(const std::string& path, const torch::Tensor& tensor);
absl::Status WriteNpz(const std::string& path, const std::map<std::string, torch::Tensor>& arrays);

}  // namespace athanor

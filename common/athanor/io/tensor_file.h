// Tensors in the safetensors format: a little-endian u64 header length, a JSON header, the bytes of all tensors without
// holes. Python's `safetensors` opens what is written here, and the other way round.
//
//   RETURN_IF_ERROR(WriteTensorFile("weights.safetensors", tensors, {{"format", "pt"}}));
//   ASSIGN_OR_RETURN(TensorFile file, ReadTensorFile("weights.safetensors"));
//
// Dtypes: F64 F32 F16 BF16 I64 I32 I16 I8 U8 U16 U32 U64 BOOL C64, F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ F8_E8M0, F4
// (pairs of them: torch.float4_e2m1fn_x2). Tensors come back on the CPU, contiguous, owning their memory. Headers that
// the reference library refuses are refused. Reading trusts nothing: DATA_LOSS or INVALID_ARGUMENT name file and
// offset. Nothing is ever executed.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

struct TensorFile {
  std::map<std::string, torch::Tensor> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__"
  // What stands in the file beside them and is no tensor: "epoch: an integer". Of what torch.save wrote.
  std::vector<std::string> skipped;
};

// One tensor's place behind the header, in the order of the file.
struct TensorSlot {
  std::string name;
  torch::ScalarType dtype = torch::kFloat;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes from the end of the header
};

inline constexpr int64_t kMaxHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensors = 1'000'000;

// "F32"; INVALID_ARGUMENT for a dtype that the format has not.
absl::StatusOr<std::string> SafetensorsDtype(torch::ScalarType dtype);

// INVALID_ARGUMENT for a name that the format cannot hold: allowed is UTF-8, but for "__metadata__".
absl::Status CheckTensorName(const std::string& name);

// The eight bytes of length and the JSON, padded with spaces to a multiple of 8.
absl::StatusOr<std::string> EncodeHeader(const std::vector<TensorSlot>& slots,
                                         const std::map<std::string, std::string>& metadata);

// The tensor's values in bytes that can be written: detached, on the CPU, contiguous, without a conj or neg bit.
torch::Tensor DenseOnHost(const torch::Tensor& tensor);

// `bytes` is the whole file; `name` is for messages.
absl::StatusOr<TensorFile> ParseTensorFile(const std::string& name, const char* bytes, int64_t size);
absl::StatusOr<TensorFile> ReadTensorFile(const std::string& path);
// Atomically: temporary file, sync, rename. Tensors that share memory are written each with its own bytes. A name is
// UTF-8 and not "__metadata__"; INVALID_ARGUMENT.
absl::Status WriteTensorFile(const std::string& path, const std::map<std::string, torch::Tensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {});

}  // namespace athanor

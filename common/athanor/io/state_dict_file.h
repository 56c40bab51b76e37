// Named tensors out of a file, by its kind: safetensors, or what torch.save wrote (a zip with a pickle: .pt, .pth,
// .bin). Nothing in the file is executed: of a pickle only tensors in (nested) dictionaries are taken.
//
//   ASSIGN_OR_RETURN(TensorFile file, ReadStateDictFile("resnet18.pt"));
//   file.tensors.at("layer1.0.conv1.weight");           // nested dictionaries: {"model": {"w": …}} -> "model.w"
//
// Tensors come back on the CPU, contiguous, owning their memory; dtypes are kept. Files of machines of the other byte
// order are turned around; a conj or neg bit is carried out; of parameters, tensors of a class or with attributes the
// data is taken. Names of one and the same tensor (tied weights) come back as one tensor. What is no tensor is left out
// and listed in `skipped`.
// Errors: NOT_FOUND; INVALID_ARGUMENT for a file of another kind (the old format before zip, TorchScript, a whole
// module); DATA_LOSS names the file and what is damaged. Sparse and quantised tensors are refused by name. LibTorch's
// zip reader does not verify the checksums of the archive: damage in the middle of a tensor's bytes goes unnoticed
// (safetensors of a checkpoint have theirs in the manifest). What a file becomes is bounded: records together by the
// file's size, tensors by 64 times that or 256 MiB (names that share a storage, strides of zero). Thread-safe.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/io/tensor_file.h"

namespace athanor {

// The kind is seen from the first bytes, not from the extension.
absl::StatusOr<TensorFile> ReadStateDictFile(const std::string& path);

// A .pt file that torch.load(path, weights_only=True) gives back as a dictionary. Tensors that share memory (tied
// weights, views of one tensor) share it in the file too, and in PyTorch after loading. Atomic. INVALID_ARGUMENT names
// a tensor that is undefined, not dense, or of a dtype that Python has not.
absl::Status WriteStateDictFile(const std::string& path, const std::map<std::string, torch::Tensor>& tensors);

}  // namespace athanor

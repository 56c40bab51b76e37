#include "athanor/io/tensor_file.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/mapped_file.h"
#include "athanor/io/tensor_header.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

absl::Status Damaged(const std::string& file, int64_t offset, const std::string& what) {
  return absl::DataLossError(absl::StrCat(file, ", offset ", offset, ": ", what));
}

}  // namespace

absl::StatusOr<TensorFile> ParseTensorFile(const std::string& name, const char* bytes, int64_t size) {
  if (size < 8) return Damaged(name, 0, absl::StrCat(size, " bytes are no safetensors file"));
  const uint64_t length = HeaderLength(bytes);
  if (length > static_cast<uint64_t>(kMaxHeaderBytes) || length > static_cast<uint64_t>(size - 8)) {
    return Damaged(name, 0, absl::StrCat("a header of ", length, " bytes in a file of ", size));
  }
  const auto header_size = static_cast<int64_t>(length);
  ASSIGN_OR_RETURN(TensorHeader header,
                   DecodeHeader(name, {bytes + 8, static_cast<size_t>(header_size)}, size - 8 - header_size));
  TensorFile result;
  result.metadata = std::move(header.metadata);
  const char* data = bytes + 8 + header_size;
  RETURN_IF_ERROR(RunTorch(absl::StrCat("reading ", name), [&] {
    for (const TensorSlot& slot : header.slots) {
      torch::Tensor tensor = torch::empty(slot.shape, torch::TensorOptions().dtype(slot.dtype));
      if (slot.end > slot.begin)
        std::memcpy(tensor.data_ptr(), data + slot.begin, static_cast<size_t>(slot.end - slot.begin));
      // A byte of a bool is 0 or 1 for LibTorch; as the reference does, any other is true.
      if (slot.dtype == torch::kBool) tensor = tensor.view(torch::kByte).ne(0);
      result.tensors[slot.name] = std::move(tensor);
    }
  }));
  return result;
}

torch::Tensor DenseOnHost(const torch::Tensor& tensor) {
  return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous();
}

absl::StatusOr<TensorFile> ReadTensorFile(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return ParseTensorFile(path, file.data(), file.size());
}

absl::Status WriteTensorFile(const std::string& path, const std::map<std::string, torch::Tensor>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSlot> slots;
  std::vector<torch::Tensor> sources;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined() || tensor.layout() != torch::kStrided)
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is undefined or not dense"));
    sources.push_back(DenseOnHost(tensor));
    const auto bytes = static_cast<int64_t>(sources.back().nbytes());
    slots.push_back({name, tensor.scalar_type(), tensor.sizes().vec(), offset, offset + bytes});
    offset += bytes;
  }
  ASSIGN_OR_RETURN(const std::string header, EncodeHeader(slots, metadata));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Append(header.data(), header.size()));
  for (const torch::Tensor& source : sources) RETURN_IF_ERROR(file.Append(source.data_ptr(), source.nbytes()));
  return file.Commit();
}

}  // namespace athanor

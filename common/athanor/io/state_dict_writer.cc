// What torch.save writes for a dictionary of tensors: a zip with a pickle (protocol 2) and one file per storage.
#include <caffe2/serialize/inline_container.h>

#include <cstdint>
#include <limits>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {
namespace {

const char* StorageClass(torch::ScalarType type) {
  switch (type) {
    case torch::kFloat32:
      return "FloatStorage";
    case torch::kFloat64:
      return "DoubleStorage";
    case torch::kFloat16:
      return "HalfStorage";
    case torch::kBFloat16:
      return "BFloat16Storage";
    case torch::kInt64:
      return "LongStorage";
    case torch::kInt32:
      return "IntStorage";
    case torch::kInt16:
      return "ShortStorage";
    case torch::kInt8:
      return "CharStorage";
    case torch::kUInt8:
      return "ByteStorage";
    case torch::kBool:
      return "BoolStorage";
    case torch::kComplexFloat:
      return "ComplexFloatStorage";
    case torch::kComplexDouble:
      return "ComplexDoubleStorage";
    default:
      return nullptr;
  }
}

// The few opcodes that tensors need.
class Pickle {
 public:
  Pickle() { bytes_ = "\x80\x02}("; }  // protocol 2, a dictionary, its items

  void AddTensor(const std::string& name, const torch::Tensor& tensor, const std::string& key) {
    Text(name);
    Global("torch._utils", "_rebuild_tensor_v2");
    bytes_ += "((";
    Text("storage");
    Global("torch", StorageClass(tensor.scalar_type()));
    Text(key);
    Text("cpu");
    Integer(tensor.numel());
    bytes_ += "tQ";  // the tuple names a storage
    Integer(0);
    Tuple(tensor.sizes());
    Tuple(tensor.strides());
    bytes_ += '\x89';  // requires no gradient
    Global("collections", "OrderedDict");
    bytes_ += ")RtR";  // no hooks; the tensor
  }
  std::string Finish() && { return std::move(bytes_) + "u."; }

 private:
  void Little(uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
  }
  void Text(std::string_view text) {
    bytes_ += 'X';
    Little(text.size(), 4);
    bytes_ += text;
  }
  void Global(std::string_view module, std::string_view name) {
    absl::StrAppend(&bytes_, "c", std::string(module), "\n", std::string(name), "\n");
  }
  void Integer(int64_t value) {
    if (value <= std::numeric_limits<int32_t>::max()) {
      bytes_ += 'J';
      Little(static_cast<uint64_t>(value), 4);
    } else {
      bytes_ += "\x8a\x08";  // eight bytes
      Little(static_cast<uint64_t>(value), 8);
    }
  }
  void Tuple(torch::IntArrayRef values) {
    bytes_ += '(';
    for (const int64_t value : values) Integer(value);
    bytes_ += 't';
  }

  std::string bytes_;
};

absl::Status CheckTensors(const std::string& path, const std::map<std::string, torch::Tensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    std::string problem;
    if (!tensor.defined()) {
      problem = "undefined";
    } else if (tensor.layout() != torch::kStrided || tensor.is_quantized()) {
      problem = "not dense";
    } else if (StorageClass(tensor.scalar_type()) == nullptr) {
      problem = absl::StrCat("of ", c10::toString(tensor.scalar_type()));
    }
    if (problem.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor '", name, "' is ", problem, "; allowed: dense tensors of the usual dtypes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteStateDictFile(const std::string& path, const std::map<std::string, torch::Tensor>& tensors) {
  RETURN_IF_ERROR(CheckTensors(path, tensors));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  absl::Status written;
  RETURN_IF_ERROR(RunTorch(absl::StrCat("writing ", path), [&] {
    caffe2::serialize::PyTorchStreamWriter archive([&](const void* data, size_t size) {
      if (written.ok()) written = file.Append(data, size);
      return written.ok() ? size : 0;
    });
    Pickle pickle;
    int64_t next = 0;
    std::vector<torch::Tensor> dense;
    for (const auto& [name, tensor] : tensors) {
      dense.push_back(tensor.detach().cpu().contiguous());
      pickle.AddTensor(name, dense.back(), absl::StrCat(next++));
    }
    const std::string bytes = std::move(pickle).Finish();
    archive.writeRecord("data.pkl", bytes.data(), bytes.size());
    archive.writeRecord("byteorder", "little", 6);
    for (size_t i = 0; i < dense.size(); ++i)
      archive.writeRecord(absl::StrCat("data/", i), dense[i].const_data_ptr(), dense[i].nbytes());
    archive.writeEndOfFile();
  }));
  RETURN_IF_ERROR(written);
  return file.Commit();
}

}  // namespace athanor

// What torch.distributed.checkpoint.load reads: each tensor as torch.save writes it, one behind the other in one file,
// and a pickle of dataclasses that says where. Metadata comes last.
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/exchange/sources.h"
#include "athanor/exchange/tensor_sink.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/pickle_writer.h"

namespace athanor {
namespace {

constexpr char kModule[] = "torch.distributed.checkpoint.metadata";
constexpr char kDataFile[] = "__0_0.distcp";
constexpr char kVersion[] = "1.0.0";

// An object of a class without arguments; its state follows, then "b".
PickleWriter& Object(PickleWriter& pickle, const char* module, const char* name) {
  return pickle.Global(module, name).Op(")\x81");
}

PickleWriter& Size(PickleWriter& pickle, torch::IntArrayRef sizes) {
  return pickle.Global("torch", "Size").Integers(sizes).Op("\x85R");
}

struct Place {
  int64_t offset = 0, length = 0;
};

void Properties(PickleWriter& pickle, torch::ScalarType dtype) {
  Object(pickle, kModule, "TensorProperties").Op("(");
  pickle.Global("torch", FindDtype(dtype)->python);
  pickle.Global("torch.serialization", "_get_layout").Text("torch.strided").Op("\x85R");
  pickle.Op("\x89").Global(kModule, "_MEM_FORMAT_ENCODING").Integer(0).Op("\x85R\x89tb");
}

void TensorMetadata(PickleWriter& pickle, const StateDictEntry& tensor) {
  Object(pickle, kModule, "TensorStorageMetadata").Op("}(").Text("properties");
  Properties(pickle, tensor.dtype);
  Size(pickle.Text("size"), tensor.shape);
  Object(pickle.Text("chunks").Op("]"), kModule, "ChunkStorageMetadata").Op("}(");
  Size(pickle.Text("offsets"), std::vector<int64_t>(tensor.shape.size()));
  Size(pickle.Text("sizes"), tensor.shape).Op("ubaub");
}

// "model.layers.0.weight" is {"model": {"layers.0.weight": …}} to Python when `nested`.
void Path(PickleWriter& pickle, const std::string& name, bool nested) {
  const size_t dot = nested ? name.find('.') : std::string::npos;
  pickle.Op("(").Text(name.substr(0, dot));
  if (dot != std::string::npos) pickle.Text(name.substr(dot + 1));
  pickle.Op("t");
}

std::string Metadata(const std::vector<StateDictEntry>& tensors, const std::vector<Place>& places, bool nested) {
  PickleWriter pickle;
  Object(pickle, kModule, "Metadata").Op("}(").Text("state_dict_metadata").Op("}(");
  for (const StateDictEntry& tensor : tensors) TensorMetadata(pickle.Text(tensor.name), tensor);
  pickle.Op("u").Text("planner_data").Op("}(");
  for (const StateDictEntry& tensor : tensors) Path(pickle.Text(tensor.name), tensor.name, nested);
  pickle.Op("u").Text("storage_data").Op("}(");
  for (size_t i = 0; i < tensors.size(); ++i) {
    Object(pickle, kModule, "MetadataIndex").Op("}(").Text("fqn").Text(tensors[i].name);
    Size(pickle.Text("offset"), std::vector<int64_t>(tensors[i].shape.size()));
    pickle.Text("index").Integer(0).Op("ub");
    Object(pickle, "torch.distributed.checkpoint.filesystem", "_StorageInfo").Op("}(");
    pickle.Text("relative_path").Text(kDataFile).Text("offset").Integer(places[i].offset);
    pickle.Text("length").Integer(places[i].length).Op("ub");
  }
  pickle.Op("u").Text("storage_meta").Op("N").Text("version").Text(kVersion).Op("ub");
  return std::move(pickle).Finish();
}

class TorchDistributedSink : public TensorSink {
 public:
  TorchDistributedSink(std::string folder, bool nested) : folder_(std::move(folder)), nested_(nested) {}

  absl::Status Begin(const std::vector<StateDictEntry>& tensors) override {
    RETURN_IF_ERROR(EnsureDir(folder_.string()));
    std::error_code error;
    const std::filesystem::path metadata = folder_ / kTorchDistributedMetadata;
    if (std::filesystem::exists(metadata, error))
      return absl::AlreadyExistsError(absl::StrCat(metadata.string(), ": there is a checkpoint already"));
    tensors_ = tensors;
    ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create((folder_ / kDataFile).string()));
    file_.emplace(std::move(file));
    return absl::OkStatus();
  }

  absl::Status Add(size_t index, const torch::Tensor& tensor) override {
    const int64_t begin = written_;
    StateDictStream out([this](const void* data, size_t size) {
      written_ += static_cast<int64_t>(size);
      return file_->Append(data, size);
    });
    StateDictEntry entry = tensors_[index];
    entry.same_as = 0;
    RETURN_IF_ERROR(out.BeginTensor(entry));
    RETURN_IF_ERROR(out.Add(0, tensor));
    RETURN_IF_ERROR(out.Finish());
    places_.push_back({begin, written_ - begin});
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    RETURN_IF_ERROR(file_->Commit());
    return WriteFileAtomically((folder_ / kTorchDistributedMetadata).string(), Metadata(tensors_, places_, nested_));
  }

 private:
  const std::filesystem::path folder_;
  const bool nested_;
  std::vector<StateDictEntry> tensors_;
  std::optional<AtomicFile> file_;
  std::vector<Place> places_;
  int64_t written_ = 0;
};

}  // namespace

std::unique_ptr<TensorSink> NewTorchDistributedSink(const std::string& folder, bool nested) {
  return std::make_unique<TorchDistributedSink>(folder, nested);
}

}  // namespace athanor

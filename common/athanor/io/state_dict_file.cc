#include "athanor/io/state_dict_file.h"

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/pickle_reader.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {
namespace {

using Kind = PickleValue::Kind;
constexpr size_t kMaxTensorDims = 64;
// What a file may become: names that many dictionaries share, storages that many tensors share, strides of zero.
constexpr uint64_t kFreeBytes = uint64_t{1} << 28, kBytesPerByte = 64;
constexpr uint64_t kEntryBytes = 64;

std::optional<torch::ScalarType> DtypeOfStorage(const std::string& global) {
  static const std::map<std::string, torch::ScalarType> dtypes = {{"torch.DoubleStorage", torch::kDouble},
                                                                  {"torch.FloatStorage", torch::kFloat},
                                                                  {"torch.HalfStorage", torch::kHalf},
                                                                  {"torch.BFloat16Storage", torch::kBFloat16},
                                                                  {"torch.LongStorage", torch::kLong},
                                                                  {"torch.IntStorage", torch::kInt},
                                                                  {"torch.ShortStorage", torch::kShort},
                                                                  {"torch.CharStorage", torch::kChar},
                                                                  {"torch.ByteStorage", torch::kByte},
                                                                  {"torch.BoolStorage", torch::kBool},
                                                                  {"torch.ComplexFloatStorage", torch::kComplexFloat}};
  const auto found = dtypes.find(global);
  return found == dtypes.end() ? std::nullopt : std::optional(found->second);
}

// The integers of a tuple; false when it is something else.
bool Integers(const PickleValue& tuple, std::vector<int64_t>* out) {
  if (!tuple.Is(Kind::kTuple) || tuple.items.size() > kMaxTensorDims) return false;
  for (const PickleValue* item : tuple.items) {
    if (!item->Is(Kind::kInt) || item->integer < 0) return false;
    out->push_back(item->integer);
  }
  return true;
}

class Archive {
 public:
  Archive(const std::string& path, uint64_t file_size)
      : path_(path), reader_(path), packed_left_(file_size), left_(kFreeBytes + kBytesPerByte * file_size) {}

  absl::Status Read(TensorFile* out) {
    if (reader_.hasRecord("constants.pkl")) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": a TorchScript module; allowed: a state dict"));
    }
    ASSIGN_OR_RETURN(const Bytes record, Record("data.pkl"));
    const auto& [data, size] = record;
    const std::string_view bytes(static_cast<const char*>(data.get()), size);
    ASSIGN_OR_RETURN(const PickleDocument document, ParsePickle(path_, bytes));
    if (!document.root->Is(Kind::kDict)) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": holds no dictionary of tensors"));
    }
    return Collect(*document.root, out);
  }

 private:
  using Bytes = std::tuple<at::DataPtr, size_t>;

  // Records of a file lie in it one behind the other, and torch.save stores them: together they are smaller than it.
  absl::StatusOr<Bytes> Record(const std::string& record) {
    const uint64_t size = reader_.getRecordSize(record);
    if (size > packed_left_) {
      return absl::DataLossError(
          absl::StrCat(path_, ": record ", record, " promises ", size, " bytes, more than the file holds"));
    }
    packed_left_ -= size;
    return reader_.getRecord(record);
  }

  bool Pay(uint64_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }

  // Walks nested dictionaries; an explicit stack, since the nesting is the file's.
  absl::Status Collect(const PickleValue& root, TensorFile* out) {
    std::vector<std::pair<std::string, const PickleValue*>> open = {{"", &root}};
    while (!open.empty()) {
      const auto [prefix, dictionary] = std::move(open.back());
      open.pop_back();
      for (const auto& [key, value] : dictionary->Entries()) {
        // A dictionary that holds itself would never end.
        if (!Pay(kEntryBytes + prefix.size() + key->text.size()))
          return absl::DataLossError(absl::StrCat(path_, ": dictionaries hold each other too often"));
        if (!key->Is(Kind::kString)) continue;
        const std::string name = prefix.empty() ? key->text : absl::StrCat(prefix, ".", key->text);
        if (value->Is(Kind::kDict)) {
          open.emplace_back(name, value);
          continue;
        }
        if (!value->Is(Kind::kCall)) continue;
        ASSIGN_OR_RETURN(std::optional<torch::Tensor> tensor, TensorOf(name, *value));
        if (tensor.has_value()) out->tensors[name] = *std::move(tensor);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Damaged(const std::string& name, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(path_, ": tensor '", name, "': ", what));
  }

  // Nothing for a call that makes no tensor.
  absl::StatusOr<std::optional<torch::Tensor>> TensorOf(const std::string& name, const PickleValue& call) {
    const PickleValue* callee = call.items[0];
    const PickleValue* arguments = call.items[1];
    if (!callee->Is(Kind::kGlobal)) return std::nullopt;
    if (callee->text == "torch._utils._rebuild_parameter") {
      if (arguments->items.empty() || !arguments->items[0]->Is(Kind::kCall)) return Damaged(name, "no data");
      // One level: a parameter of a parameter is not what torch.save writes.
      const PickleValue& inner = *arguments->items[0];
      if (inner.items[0]->text == callee->text) return Damaged(name, "a parameter in a parameter");
      return TensorOf(name, inner);
    }
    if (callee->text == "torch._utils._rebuild_tensor_v2") {
      ASSIGN_OR_RETURN(torch::Tensor tensor, Rebuild(name, *arguments));
      return tensor;
    }
    if (callee->text.compare(0, 20, "torch._utils._rebuil") == 0)
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor '", name, "' is of a kind that is not read (", callee->text, ")"));
    return std::nullopt;
  }

  // (storage, offset, sizes, strides, …); the storage's id is ("storage", type, key, location, elements).
  absl::StatusOr<torch::Tensor> Rebuild(const std::string& name, const PickleValue& arguments) {
    const auto& parts = arguments.items;
    std::vector<int64_t> sizes, strides;
    if (parts.size() < 4 || !parts[0]->Is(Kind::kPersistent) || !parts[1]->Is(Kind::kInt) ||
        !Integers(*parts[2], &sizes) || !Integers(*parts[3], &strides) || sizes.size() != strides.size() ||
        parts[1]->integer < 0) {
      return Damaged(name, "its description is not one of a tensor");
    }
    const auto& id = parts[0]->items[0]->items;
    if (id.size() != 5 || !id[1]->Is(Kind::kGlobal) || !id[2]->Is(Kind::kString)) return Damaged(name, "its storage");
    const std::optional<torch::ScalarType> dtype = DtypeOfStorage(id[1]->text);
    if (!dtype.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor '", name, "' has the storage type ", id[1]->text, ", which is not read"));
    }
    ASSIGN_OR_RETURN(const torch::Tensor storage, Storage(name, id[2]->text, *dtype));
    // The last element reached must lie inside: in steps that cannot overflow.
    int64_t last = parts[1]->integer, bytes = static_cast<int64_t>(torch::elementSize(*dtype));
    bool empty = false;
    for (size_t i = 0; i < sizes.size(); ++i) {
      empty = empty || sizes[i] == 0;
      // LibTorch multiplies extents beside a zero too.
      if (__builtin_mul_overflow(bytes, std::max<int64_t>(sizes[i], 1), &bytes))
        return Damaged(name, "its size overflows");
      int64_t reach = 0;
      if (sizes[i] > 1 &&
          (__builtin_mul_overflow(sizes[i] - 1, strides[i], &reach) || __builtin_add_overflow(last, reach, &last))) {
        return Damaged(name, "its strides leave the storage");
      }
    }
    if (!empty && last >= storage.numel()) return Damaged(name, "it reaches beyond its storage");
    if (empty) return torch::empty(sizes, *dtype);
    if (!Pay(static_cast<uint64_t>(bytes))) return Damaged(name, "storages are repeated too often");
    return storage.as_strided(sizes, strides, parts[1]->integer).clone(at::MemoryFormat::Contiguous);
  }

  absl::StatusOr<torch::Tensor> Storage(const std::string& name, const std::string& key, torch::ScalarType dtype) {
    const auto known = storages_.find(key);
    if (known != storages_.end()) {
      if (known->second.scalar_type() != dtype) return Damaged(name, "its storage has two types");
      return known->second;
    }
    const std::string record = absl::StrCat("data/", key);
    if (!reader_.hasRecord(record)) return Damaged(name, absl::StrCat("no record ", record));
    ASSIGN_OR_RETURN(Bytes bytes, Record(record));
    auto& [data, size] = bytes;
    const auto elements = static_cast<int64_t>(size / torch::elementSize(dtype));
    auto owner = std::make_shared<at::DataPtr>(std::move(data));
    torch::Tensor storage = torch::from_blob(owner->get(), {elements}, [owner](void*) {}, dtype);
    storages_[key] = storage;
    return storage;
  }

  const std::string path_;
  caffe2::serialize::PyTorchStreamReader reader_;
  uint64_t packed_left_, left_;
  std::map<std::string, torch::Tensor> storages_;
};

}  // namespace

absl::StatusOr<TensorFile> ReadStateDictFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  char head[4] = {};
  if (!in.read(head, sizeof(head))) {
    if (!std::ifstream(path)) return FileError(errno, "open", path);
    return absl::DataLossError(absl::StrCat(path, ": shorter than any file of tensors"));
  }
  if (std::string_view(head, 2) == "\x80\x02") {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a bare pickle (torch.save before 1.6); save it again with a newer PyTorch"));
  }
  if (std::string_view(head, 4) != "PK\x03\x04") return ReadTensorFile(path);
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) return FileError(error.value(), "cannot read", path);
  TensorFile file;
  absl::Status status;
  const absl::Status thrown = RunTorch("reading", [&] { status = Archive(path, size).Read(&file); });
  // miniz and the reader throw on a damaged archive.
  if (!thrown.ok()) return absl::DataLossError(absl::StrCat(path, ": ", thrown.message()));
  RETURN_IF_ERROR(status);
  return file;
}

}  // namespace athanor

#include "athanor/io/state_dict_archive.h"

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/dtype_names.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

using Kind = PickleValue::Kind;
constexpr size_t kMaxTensorDims = 64;
// What a file may become: names that many dictionaries share, storages that many tensors share, strides of zero.
constexpr uint64_t kFreeBytes = uint64_t{1} << 28, kBytesPerByte = 64;
constexpr uint64_t kEntryBytes = 64;

// Where a tensor's description ends in another one: a subclass, a parameter, both with attributes, nested in each
// other.
constexpr int kMaxWrappers = 8;

// Of "torch.FloatStorage"; of tensors of CUDA in files of old versions too.
std::optional<torch::ScalarType> DtypeOfStorageClass(absl::string_view global) {
  if (!absl::ConsumePrefix(&global, "torch.cuda.") && !absl::ConsumePrefix(&global, "torch.")) return std::nullopt;
  if (!absl::ConsumeSuffix(&global, "Storage")) return std::nullopt;
  return DtypeOfStorage({global.data(), global.size()});
}

// "torch.uint16", of tensors whose storage has no type.
std::optional<torch::ScalarType> DtypeOfGlobal(absl::string_view global) {
  if (!absl::ConsumePrefix(&global, "torch.")) return std::nullopt;
  return DtypeOfPython({global.data(), global.size()});
}

// Turns the bytes of every number around; of a complex one, of both its parts.
void SwapBytes(char* bytes, size_t size, torch::ScalarType dtype) {
  const size_t width = torch::elementSize(dtype) / (torch::isComplexType(dtype) ? 2 : 1);
  for (size_t at = 0; width > 1 && at + width <= size; at += width) std::reverse(bytes + at, bytes + at + width);
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

// A zip within a file.
class PartOfFile : public caffe2::serialize::ReadAdapterInterface {
 public:
  PartOfFile(const std::string& path, int64_t offset, int64_t length)
      : in_(path, std::ios::binary), offset_(offset), length_(static_cast<size_t>(length)) {}
  size_t size() const override { return length_; }
  size_t read(uint64_t position, void* to, size_t count, const char* /*what*/ = "") const override {
    if (position > length_) return 0;
    in_.clear();
    in_.seekg(offset_ + static_cast<int64_t>(position));
    in_.read(static_cast<char*>(to), static_cast<std::streamsize>(std::min<uint64_t>(count, length_ - position)));
    return static_cast<size_t>(in_.gcount());
  }

 private:
  mutable std::ifstream in_;
  const int64_t offset_;
  const size_t length_;
};

uint64_t Little(std::string_view bytes, size_t at, size_t width) {
  uint64_t value = 0;
  for (size_t i = width; i-- > 0 && at + width <= bytes.size();)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// LibTorch's reader takes some records as it opens a zip, and asks for the memory that the directory of the zip
// promises. A record that promises more than the whole file holds is found here; all else is that reader's to judge.
absl::Status CheckPromises(const std::string& place, const PartOfFile& file) {
  constexpr size_t kEnd = 22, kEntry = 46, kLongestComment = 65536, kLocator = 20, kEnd64 = 56;
  constexpr uint64_t kInExtra = 0xffffffff;
  const auto bytes = [&file](uint64_t from, uint64_t count) {
    std::string read(std::min<uint64_t>(count, from < file.size() ? file.size() - from : 0), '\0');
    read.resize(file.read(from, read.data(), read.size()));
    return read;
  };
  const uint64_t tail_at = file.size() - std::min<uint64_t>(file.size(), kEnd + kLongestComment + kLocator);
  const std::string tail = bytes(tail_at, file.size());
  const size_t end = tail.rfind("PK\5\6");
  if (end == std::string::npos || end + kEnd > tail.size()) return absl::OkStatus();
  uint64_t size = Little(tail, end + 12, 4), at = Little(tail, end + 16, 4);
  if (end >= kLocator && tail.compare(end - kLocator, 4, "PK\6\7") == 0) {
    const std::string end64 = bytes(Little(tail, end - kLocator + 8, 8), kEnd64);
    size = Little(end64, 40, 8);
    at = Little(end64, 48, 8);
  }
  const std::string directory = bytes(at, size);
  for (size_t entry = 0; entry + kEntry <= directory.size();) {
    if (directory.compare(entry, 4, "PK\1\2") != 0) return absl::OkStatus();
    const size_t name = Little(directory, entry + 28, 2), extra = Little(directory, entry + 30, 2);
    uint64_t promised = Little(directory, entry + 24, 4);
    const size_t first = entry + kEntry + name;  // of the extra fields; the long sizes are the first of them
    if (promised == kInExtra && extra >= 12 && Little(directory, first, 2) == 1)
      promised = Little(directory, first + 4, 8);
    if (promised > file.size()) {
      return absl::DataLossError(absl::StrCat(place, ": record ",
                                              absl::CHexEscape(directory.substr(entry + kEntry, name)), " promises ",
                                              promised, " bytes, more than the file holds"));
    }
    entry = first + extra + Little(directory, entry + 32, 2);
  }
  return absl::OkStatus();
}

class Archive : public StateDictArchive {
 public:
  Archive(const std::string& path, uint64_t file_size)
      : path_(path), reader_(path), file_size_(file_size), packed_left_(file_size), left_(Budget()) {}
  Archive(const std::string& path, const std::shared_ptr<PartOfFile>& part)
      : path_(path), reader_(part), file_size_(part->size()), packed_left_(file_size_), left_(Budget()) {}

  absl::Status ParseDictionary() {
    if (reader_.hasRecord("constants.pkl")) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": a TorchScript module; allowed: a state dict"));
    }
    RETURN_IF_ERROR(Parse());
    if (!document_.root->Is(Kind::kDict)) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": holds ", athanor::Describe(*document_.root),
                                                     "; allowed: a dictionary of tensors (module.state_dict())"));
    }
    return Collect();
  }

  absl::Status ParseTensor() {
    RETURN_IF_ERROR(Parse());
    ASSIGN_OR_RETURN(std::optional<ArchiveTensor> tensor, Describe("", *document_.root));
    if (!tensor.has_value())
      return absl::DataLossError(absl::StrCat(path_, ": holds ", athanor::Describe(*document_.root), ", no tensor"));
    tensors_.push_back(*std::move(tensor));
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<ArchiveTensor>> Describe(const std::string& name, const PickleValue& call) override {
    if (!call.Is(Kind::kCall)) return std::nullopt;
    const PickleValue* callee = call.items[0];
    const PickleValue* arguments = call.items[1];
    for (int i = 0; i < kMaxWrappers && callee->Is(Kind::kGlobal); ++i) {
      const auto& parts = arguments->items;
      if (IsFromType(callee->text)) {  // (function, class, its arguments, attributes)
        if (parts.size() < 3 || !parts[0]->Is(Kind::kGlobal) || !parts[2]->Is(Kind::kTuple))
          return Damaged(name, "its description is not one of a tensor of a class");
        callee = parts[0];
        arguments = parts[2];
      } else if (HoldsData(callee->text)) {  // (data, …)
        if (parts.empty() || !parts[0]->Is(Kind::kCall)) return Damaged(name, "no data");
        callee = parts[0]->items[0];
        arguments = parts[0]->items[1];
      } else {
        break;
      }
    }
    if (!callee->Is(Kind::kGlobal)) return std::nullopt;
    if (callee->text == "torch._utils._rebuild_tensor_v2" || callee->text == "torch._utils._rebuild_tensor_v3" ||
        callee->text == "torch._utils._rebuild_tensor") {
      ASSIGN_OR_RETURN(ArchiveTensor tensor, Parts(name, callee->text, *arguments));
      return tensor;
    }
    if (IsFromType(callee->text)) return Damaged(name, "too many classes in each other");
    if (absl::StartsWith(callee->text, "torch._utils._rebuil")) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor '", name, "' is of a kind that is not read (", callee->text, ")"));
    }
    return std::nullopt;
  }

  absl::StatusOr<torch::Tensor> Read(const ArchiveTensor& wanted) override {
    if (!records_.contains(wanted.storage)) {
      records_.clear();
      storages_.clear();
      left_ = Budget();
    }
    absl::StatusOr<torch::Tensor> read = absl::InternalError("");
    const absl::Status thrown = RunTorch("reading", [&] { read = Rebuild(wanted); });
    if (!thrown.ok()) return absl::DataLossError(absl::StrCat(path_, ": ", thrown.message()));
    return read;
  }

  absl::Status ReadAll(std::map<std::string, torch::Tensor>* out) override {
    const auto less = [](const ArchiveTensor* a, const ArchiveTensor* b) { return a->Key() < b->Key(); };
    absl::Status status;
    const absl::Status thrown = RunTorch("reading", [&] {
      std::map<const ArchiveTensor*, torch::Tensor, decltype(less)> made(less);
      for (const ArchiveTensor& wanted : tensors_) {
        torch::Tensor& one = made[&wanted];
        if (!one.defined()) {
          absl::StatusOr<torch::Tensor> read = Rebuild(wanted);
          status = read.status();
          if (!read.ok()) return;
          one = *std::move(read);
        }
        out->emplace(wanted.name, one);
      }
    });
    if (!thrown.ok()) return absl::DataLossError(absl::StrCat(path_, ": ", thrown.message()));
    return status;
  }

 private:
  absl::Status Parse() {
    RETURN_IF_ERROR(ReadByteOrder());
    ASSIGN_OR_RETURN(const Bytes record, Record("data.pkl"));
    const auto& [data, size] = record;
    ASSIGN_OR_RETURN(document_, ParsePickle(path_, {static_cast<const char*>(data.get()), size}));
    return absl::OkStatus();
  }
  uint64_t Budget() const { return kFreeBytes + kBytesPerByte * file_size_; }

  using Bytes = std::tuple<at::DataPtr, size_t>;

  // Records of a file lie in it one behind the other, and torch.save stores them: together they are smaller than it.
  absl::StatusOr<Bytes> Record(const std::string& record) {
    const uint64_t size = reader_.getRecordSize(record);
    if (counted_.contains(record)) return reader_.getRecord(record);
    if (size > packed_left_) {
      return absl::DataLossError(
          absl::StrCat(path_, ": record ", record, " promises ", size, " bytes, more than the file holds"));
    }
    packed_left_ -= size;
    counted_.insert(record);
    return reader_.getRecord(record);
  }

  // Of the machine that wrote it. Files of old versions do not say it, and are little-endian.
  absl::Status ReadByteOrder() {
    if (!reader_.hasRecord("byteorder")) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Bytes record, Record("byteorder"));
    const absl::string_view order(static_cast<const char*>(std::get<0>(record).get()), std::get<1>(record));
    big_endian_ = order == "big";
    if (big_endian_ || order == "little") return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(path_, ": record byteorder: found '", absl::CHexEscape(order.substr(0, 32)),
                                            "'; allowed: little, big"));
  }

  bool Pay(uint64_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }

  using Entries = std::vector<std::pair<const PickleValue*, const PickleValue*>>;

  // Of equal keys the last one counts, as in Python. Found out once: many dictionaries may hold this one.
  const Entries& LastEntries(const PickleValue* dictionary) {
    const auto [known, fresh] = entries_.try_emplace(dictionary);
    if (!fresh) return known->second;
    const Entries all = dictionary->Entries();
    std::map<std::string_view, size_t> last;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].first->Is(Kind::kString)) last[all[i].first->text] = i;
    }
    for (size_t i = 0; i < all.size(); ++i) {
      const bool named = all[i].first->Is(Kind::kString);
      if (!named || last.at(all[i].first->text) == i) known->second.push_back(all[i]);
    }
    return known->second;
  }

  // Walks nested dictionaries; an explicit stack, since the nesting is the file's.
  absl::Status Collect() {
    struct Open {
      std::string prefix, section;
      const PickleValue* dictionary;
    };
    std::set<std::string> taken;
    std::vector<Open> open = {{"", "", document_.root}};
    std::map<std::string, size_t> unnamed;
    while (!open.empty()) {
      const auto [prefix, section, dictionary] = std::move(open.back());
      open.pop_back();
      for (const auto& [key, value] : LastEntries(dictionary)) {
        // A dictionary that holds itself would never end.
        if (!Pay(kEntryBytes + prefix.size() + key->text.size()))
          return absl::DataLossError(absl::StrCat(path_, ": dictionaries hold each other too often"));
        if (!key->Is(Kind::kString)) {
          ++unnamed[prefix];
          continue;
        }
        const std::string name = prefix.empty() ? key->text : absl::StrCat(prefix, ".", key->text);
        if (value->Is(Kind::kDict)) {
          open.push_back({name, section.empty() ? key->text : section, value});
          continue;
        }
        ASSIGN_OR_RETURN(std::optional<ArchiveTensor> tensor, Describe(name, *value));
        if (tensor.has_value()) {
          // {"a": {"b": …}, "a.b": …}: whichever was taken, the other one would be missing without a word.
          if (!taken.insert(name).second)
            return absl::InvalidArgumentError(
                absl::StrCat(path_, ": two tensors have the name '", name, "' once dictionaries are joined by dots"));
          tensor->section = section;
          tensors_.push_back(*std::move(tensor));
        } else {
          skipped_.push_back(absl::StrCat(name, ": ", athanor::Describe(*value)));
        }
      }
    }
    for (const auto& [prefix, count] : unnamed)
      skipped_.push_back(absl::StrCat(prefix, ": ", count, " entries whose keys are no texts"));
    return absl::OkStatus();
  }

  absl::Status Damaged(const std::string& name, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(path_, ": tensor '", name, "': ", what));
  }

  // A subclass, or a tensor with attributes. Both are left: what counts is the data.
  static bool IsFromType(const std::string& function) {
    return function == "torch._tensor._rebuild_from_type_v2" || function == "torch._tensor._rebuild_from_type" ||
           function == "torch.tensor._rebuild_from_type";
  }
  static bool HoldsData(const std::string& function) {
    return function == "torch._utils._rebuild_parameter" || function == "torch._utils._rebuild_parameter_with_state" ||
           function == "torch._utils._rebuild_device_tensor_from_cpu_tensor";
  }

  // What stands behind the six parts that all descriptions share.
  struct Extras {
    std::string dtype;  // as it is written
    bool conj = false, neg = false;
  };
  static Extras ExtrasOf(const std::string& function, const std::vector<const PickleValue*>& parts) {
    constexpr size_t kCommon = 6;
    Extras extras;
    size_t at = kCommon;
    if (absl::EndsWith(function, "_v3") && parts.size() > at) extras.dtype = parts[at++]->text;
    if (parts.size() <= at) return extras;
    const auto is_set = [&](std::string_view key) {
      const PickleValue* bit = parts[at]->Find(key);
      return bit != nullptr && bit->Is(Kind::kBool) && bit->integer != 0;
    };
    extras.conj = is_set("conj");
    extras.neg = is_set("neg");
    return extras;
  }

  // (storage, offset, sizes, strides, …); the storage's id is ("storage", type, key, location, elements).
  absl::StatusOr<ArchiveTensor> Parts(const std::string& name, const std::string& function,
                                      const PickleValue& arguments) {
    const auto& parts = arguments.items;
    std::vector<int64_t> sizes, strides;
    if (parts.size() < 4 || !parts[0]->Is(Kind::kPersistent) || !parts[1]->Is(Kind::kInt) ||
        !Integers(*parts[2], &sizes) || !Integers(*parts[3], &strides) || sizes.size() != strides.size() ||
        parts[1]->integer < 0) {
      return Damaged(name, "its description is not one of a tensor");
    }
    const auto& id = parts[0]->items[0]->items;
    if (id.size() != 5 || !id[1]->Is(Kind::kGlobal) || !id[2]->Is(Kind::kString)) return Damaged(name, "its storage");
    const Extras extras = ExtrasOf(function, parts);
    const bool typed = id[1]->text != "torch.storage.UntypedStorage" && id[1]->text != "torch.UntypedStorage";
    const std::optional<torch::ScalarType> dtype =
        typed ? DtypeOfStorageClass(id[1]->text) : DtypeOfGlobal(extras.dtype);
    if (!dtype.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor '", name, "' is of the type ", typed ? id[1]->text : extras.dtype,
                       ", which is not read; allowed: torch.", NamesOf(&DtypeNames::python, ", torch.")));
    }
    if (!Pay(kEntryBytes + 2 * sizeof(int64_t) * sizes.size())) return Damaged(name, "tensors are repeated too often");
    return ArchiveTensor{.name = name,
                         .dtype = *dtype,
                         .sizes = std::move(sizes),
                         .strides = std::move(strides),
                         .storage = id[2]->text,
                         .offset = parts[1]->integer,
                         .conj = extras.conj,
                         .neg = extras.neg};
  }

  absl::StatusOr<torch::Tensor> Rebuild(const ArchiveTensor& wanted) {
    const std::string& name = wanted.name;
    ASSIGN_OR_RETURN(const torch::Tensor storage, Storage(name, wanted.storage, wanted.dtype));
    // The last element reached must lie inside: in steps that cannot overflow.
    int64_t last = wanted.offset, bytes = static_cast<int64_t>(torch::elementSize(wanted.dtype));
    bool empty = false;
    for (size_t i = 0; i < wanted.sizes.size(); ++i) {
      empty = empty || wanted.sizes[i] == 0;
      // LibTorch multiplies extents beside a zero too.
      if (__builtin_mul_overflow(bytes, std::max<int64_t>(wanted.sizes[i], 1), &bytes))
        return Damaged(name, "its size overflows");
      int64_t reach = 0;
      if (wanted.sizes[i] > 1 && (__builtin_mul_overflow(wanted.sizes[i] - 1, wanted.strides[i], &reach) ||
                                  __builtin_add_overflow(last, reach, &last))) {
        return Damaged(name, "its strides leave the storage");
      }
    }
    if (!empty && last >= storage.numel()) return Damaged(name, "it reaches beyond its storage");
    if (empty) return torch::empty(wanted.sizes, wanted.dtype);
    // Names of one tensor (tied weights) stay so.
    torch::Tensor made;
    if (!Pay(static_cast<uint64_t>(bytes))) return Damaged(name, "storages are repeated too often");
    made = storage.as_strided(wanted.sizes, wanted.strides, wanted.offset).clone(at::MemoryFormat::Contiguous);
    if (wanted.conj && made.is_complex()) made = torch::conj_physical(made);
    if (wanted.neg) made = torch::neg(made);
    return made;
  }

  // A storage's bytes as numbers of a type. One without a type of its own may be seen as several.
  absl::StatusOr<torch::Tensor> Storage(const std::string& name, const std::string& key, torch::ScalarType dtype) {
    torch::Tensor& typed = storages_[{key, dtype}];
    if (typed.defined()) return typed;
    std::shared_ptr<Bytes>& bytes = records_[key];
    if (bytes == nullptr) {
      const std::string record = absl::StrCat("data/", key);
      if (!reader_.hasRecord(record)) return Damaged(name, absl::StrCat("no record ", record));
      ASSIGN_OR_RETURN(Bytes read, Record(record));
      bytes = std::make_shared<Bytes>(std::move(read));
    }
    const auto& [data, size] = *bytes;
    const auto elements = static_cast<int64_t>(size / torch::elementSize(dtype));
    torch::Tensor numbers = torch::from_blob(data.get(), {elements}, [owner = bytes](void*) {}, dtype);
    if (big_endian_) {
      if (!Pay(size)) return Damaged(name, "storages are repeated too often");
      numbers = numbers.clone();
      SwapBytes(static_cast<char*>(numbers.data_ptr()), numbers.nbytes(), dtype);
    }
    typed = numbers;
    return numbers;
  }

  const std::string path_;
  caffe2::serialize::PyTorchStreamReader reader_;
  const uint64_t file_size_;
  uint64_t packed_left_, left_;
  std::set<std::string> counted_;
  bool big_endian_ = false;
  std::map<const PickleValue*, Entries> entries_;
  std::map<std::string, std::shared_ptr<Bytes>> records_;
  std::map<std::pair<std::string, torch::ScalarType>, torch::Tensor> storages_;
};

// miniz and the reader throw on a damaged archive.
absl::StatusOr<std::unique_ptr<StateDictArchive>> Opened(const std::string& path, const PartOfFile& file,
                                                         const std::function<std::unique_ptr<Archive>()>& open,
                                                         absl::Status (Archive::*parse)()) {
  std::unique_ptr<Archive> archive;
  absl::Status status;
  RETURN_IF_ERROR(CheckPromises(path, file));
  const absl::Status thrown = RunTorch("reading", [&] {
    archive = open();
    status = (archive.get()->*parse)();
  });
  if (!thrown.ok()) return absl::DataLossError(absl::StrCat(path, ": ", thrown.message()));
  RETURN_IF_ERROR(status);
  return archive;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateDictArchive>> StateDictArchive::Open(const std::string& path) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) return FileError(error.value(), "cannot read", path);
  return Opened(
      path, PartOfFile(path, 0, static_cast<int64_t>(size)), [&] { return std::make_unique<Archive>(path, size); },
      &Archive::ParseDictionary);
}

absl::StatusOr<std::unique_ptr<StateDictArchive>> StateDictArchive::OpenTensor(const std::string& path, int64_t offset,
                                                                               int64_t length) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) return FileError(error.value(), "cannot read", path);
  if (offset < 0 || length < 0 || static_cast<uint64_t>(offset) > size || static_cast<uint64_t>(length) > size - offset)
    return absl::DataLossError(absl::StrCat(path, ": has ", size, " bytes, no ", length, " from ", offset, " on"));
  const std::string place = absl::StrCat(path, ", offset ", offset);
  const auto part = std::make_shared<PartOfFile>(path, offset, length);
  return Opened(place, *part, [&] { return std::make_unique<Archive>(place, part); }, &Archive::ParseTensor);
}

}  // namespace athanor

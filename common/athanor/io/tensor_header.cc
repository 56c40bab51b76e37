#include "athanor/io/tensor_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/dtype_names.h"

namespace athanor {
namespace {

constexpr size_t kMaxTensorDims = 64;  // of LibTorch
constexpr size_t kShownName = 128, kShownDtype = 32;

absl::Status Damaged(const std::string& file, int64_t offset, const std::string& what) {
  return absl::DataLossError(absl::StrCat(file, ", offset ", offset, ": ", what));
}

std::string UnknownDtype(const std::string& found) {
  return absl::StrCat("unknown dtype '", found.substr(0, kShownDtype),
                      "'; allowed: ", NamesOf(&DtypeNames::safetensors));
}

// A tensor's fields as they stand in the header.
struct Fields {
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape, offsets;
};

// Takes the header apart event by event: a document would have only the last of two equal keys, and nest.
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override {
    if (depth_ == 1 && key_ == kMetadata) return true;  // as if there were none
    return Value("null");
  }
  bool boolean(bool) override { return Value("a bool"); }
  bool number_integer(number_integer_t value) override { return Value(absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t& text) override { return Value(text); }
  bool binary(binary_t&) override { return Value("bytes"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!passing_ && in_list_) {
      list_->push_back(value);
      return true;
    }
    return Value(absl::StrCat(value));
  }
  bool string(string_t& value) override {
    if (!passing_ && in_metadata_) {
      metadata_[key_] = value;
      return true;
    }
    if (passing_ || in_list_ || depth_ != 2 || key_ != "dtype") return Value("a text");
    if (fields_->dtype.has_value()) return Twice();
    fields_->dtype = value;
    return true;
  }

  bool start_object(size_t) override {
    if (!Deeper()) return false;
    if (passing_ || depth_ == 1) return true;
    if (depth_ > 2 || in_list_ || in_metadata_) return PassOrFail("an object");
    if (key_ == kMetadata) {
      in_metadata_ = true;
      return true;
    }
    fields_ = &tensors_[key_];
    *fields_ = {};
    tensor_ = key_;
    return tensors_.size() <= kMaxTensors || Fail(absl::StrCat("more than ", kMaxTensors, " tensors"));
  }
  bool end_object() override {
    if (depth_ == 2 && !in_metadata_ && !CheckTensor()) return false;
    if (depth_ == 2) in_metadata_ = false;
    return Higher();
  }
  bool start_array(size_t) override {
    if (!Deeper()) return false;
    if (passing_) return true;
    std::optional<std::vector<uint64_t>>* list = nullptr;
    if (depth_ == 3 && !in_metadata_ && key_ == "shape") list = &fields_->shape;
    if (depth_ == 3 && !in_metadata_ && key_ == "data_offsets") list = &fields_->offsets;
    if (list == nullptr || in_list_) return PassOrFail("a list");
    if (list->has_value()) return Twice();
    list_ = &list->emplace();
    in_list_ = true;
    return true;
  }
  bool end_array() override {
    if (!passing_) in_list_ = false;
    return Higher();
  }
  bool key(string_t& value) override {
    if (passing_) return true;
    key_ = value;
    if (depth_ == 1 && key_ == kMetadata && std::exchange(has_metadata_, true)) return Twice();
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Fail(absl::StrCat("the header is not JSON from its byte ", position, " on"));
  }

  const std::string& problem() const { return problem_; }
  const std::map<std::string, Fields>& tensors() const { return tensors_; }
  std::map<std::string, std::string> TakeMetadata() { return std::move(metadata_); }

 private:
  static constexpr char kMetadata[] = "__metadata__";
  static constexpr int kMaxDepth = 127;  // of the reference

  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  std::string Place() const {
    return depth_ < 2 ? absl::StrCat("'", key_.substr(0, kShownName), "'")
           : in_metadata_
               ? absl::StrCat("__metadata__, '", key_.substr(0, kShownName), "'")
               : absl::StrCat("tensor '", tensor_.substr(0, kShownName), "', field '", key_.substr(0, kShownName), "'");
  }
  // Of a name that comes twice the earlier tensor too has to be one.
  bool CheckTensor() {
    const std::string where = absl::StrCat("tensor '", tensor_.substr(0, kShownName), "': ");
    if (!fields_->dtype.has_value() || !fields_->shape.has_value() || !fields_->offsets.has_value())
      return Fail(where + "needs dtype, shape and data_offsets");
    if (!DtypeOfSafetensors(*fields_->dtype).has_value()) return Fail(where + UnknownDtype(*fields_->dtype));
    return fields_->offsets->size() == 2 || Fail(where + "data_offsets are a begin and an end");
  }
  bool Twice() { return Fail(absl::StrCat(Place(), " comes twice")); }

  // Something that no field takes. What the format does not know is passed over.
  bool Value(const std::string& found) {
    if (passing_) return true;
    if (depth_ == 0) return Fail(absl::StrCat("the header is ", found, "; allowed: a JSON object"));
    const bool known = key_ == "dtype" || key_ == "shape" || key_ == "data_offsets";
    if (depth_ >= 2 && !in_metadata_ && !known) return true;
    const char* allowed = in_metadata_ || (depth_ == 2 && key_ == "dtype") ? "a text"
                          : in_list_                                       ? "integers from 0 on"
                          : depth_ >= 2                                    ? "a list of integers"
                                                                           : "an object";
    return Fail(absl::StrCat(Place(), ": found ", found.substr(0, kShownDtype), "; allowed: ", allowed));
  }
  // An object or list just opened: of an unknown field of a tensor it is passed over until it closes.
  bool PassOrFail(const std::string& found) {
    --depth_;
    const bool fits = Value(found);
    ++depth_;
    if (fits) passing_ = depth_;
    return fits;
  }
  bool Deeper() { return ++depth_ <= kMaxDepth || Fail(absl::StrCat("it nests deeper than ", kMaxDepth)); }
  bool Higher() {
    if (passing_ == depth_) passing_ = 0;
    --depth_;
    return true;
  }

  int depth_ = 0;    // of open objects and lists
  int passing_ = 0;  // the depth of what is passed over; 0: nothing is
  bool in_metadata_ = false, in_list_ = false, has_metadata_ = false;
  std::string key_, tensor_, problem_;
  Fields* fields_ = nullptr;
  std::vector<uint64_t>* list_ = nullptr;
  std::map<std::string, Fields> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Every number of the header is checked before it is used; the parser has seen to it that all fields are there.
absl::StatusOr<TensorSlot> SlotOf(const std::string& file, const std::string& name, const Fields& fields,
                                  int64_t data_size) {
  const std::string where = absl::StrCat("tensor '", name.substr(0, kShownName), "': ");
  TensorSlot slot;
  slot.name = name;
  slot.dtype = *DtypeOfSafetensors(*fields.dtype);
  int64_t bytes = static_cast<int64_t>(torch::elementSize(slot.dtype));
  int64_t extents = bytes;  // those beside a zero count too: LibTorch multiplies them
  std::vector<uint64_t> shape = *fields.shape;
  if (shape.size() > kMaxTensorDims) return Damaged(file, kHeaderLengthBytes, where + "more than 64 dimensions");
  if (slot.dtype == torch::kFloat4_e2m1fn_x2) {  // LibTorch counts pairs
    if (shape.empty() || shape.back() % 2 != 0)
      return Damaged(file, kHeaderLengthBytes, where + "the last extent of an F4 tensor is a multiple of 2");
    shape.back() /= 2;
  }
  for (const uint64_t extent : shape) {
    if (extent > uint64_t{1} << 62) return Damaged(file, kHeaderLengthBytes, where + "its size overflows");
    slot.shape.push_back(static_cast<int64_t>(extent));
    if (__builtin_mul_overflow(extents, std::max<int64_t>(slot.shape.back(), 1), &extents))
      return Damaged(file, kHeaderLengthBytes, where + "its size overflows");
    bytes *= slot.shape.back();
  }
  for (const uint64_t offset : *fields.offsets) {
    if (offset > static_cast<uint64_t>(data_size)) {
      return Damaged(file, kHeaderLengthBytes,
                     absl::StrCat(where, "data_offsets lie outside of the ", data_size, " bytes of data"));
    }
  }
  slot.begin = static_cast<int64_t>(fields.offsets->front());
  slot.end = static_cast<int64_t>(fields.offsets->back());
  if (slot.end < slot.begin || slot.end - slot.begin != bytes) {
    return Damaged(
        file, kHeaderLengthBytes,
        absl::StrCat(where, "dtype and shape need ", bytes, " bytes, data_offsets give ", slot.end - slot.begin));
  }
  return slot;
}

absl::Status CheckCoverage(const std::string& file, const std::vector<TensorSlot>& slots, int64_t data_size) {
  int64_t covered = 0;
  for (const TensorSlot& slot : slots) {
    if (slot.begin != covered) {
      return Damaged(file, kHeaderLengthBytes,
                     absl::StrCat("tensor '", slot.name.substr(0, kShownName), "' ",
                                  slot.begin < covered ? "overlaps another" : "leaves a hole before it"));
    }
    covered = slot.end;
  }
  if (covered == data_size) return absl::OkStatus();
  return Damaged(file, kHeaderLengthBytes, absl::StrCat(data_size - covered, " bytes at the end belong to no tensor"));
}

}  // namespace

uint64_t HeaderLength(const char* begin) {
  uint64_t length = 0;
  for (int64_t i = 0; i < kHeaderLengthBytes; ++i)
    length |= static_cast<uint64_t>(static_cast<unsigned char>(begin[i])) << (8 * i);
  return length;
}

absl::StatusOr<TensorHeader> DecodeHeader(const std::string& file, std::string_view text, int64_t data_size) {
  // The parser would pass over it; the format begins with a brace.
  if (text.substr(0, 3) == "\xef\xbb\xbf")
    return Damaged(file, kHeaderLengthBytes, "the header begins with a byte order mark; allowed: a JSON object");
  if (text.find('\0') != std::string_view::npos)
    return Damaged(file, kHeaderLengthBytes, "the header holds a zero byte");
  HeaderParser parser;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &parser))
    return Damaged(file, kHeaderLengthBytes, parser.problem());
  TensorHeader header;
  for (const auto& [name, fields] : parser.tensors()) {
    ASSIGN_OR_RETURN(TensorSlot slot, SlotOf(file, name, fields, data_size));
    header.slots.push_back(std::move(slot));
  }
  std::sort(header.slots.begin(), header.slots.end(), [](const TensorSlot& a, const TensorSlot& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  RETURN_IF_ERROR(CheckCoverage(file, header.slots, data_size));
  header.metadata = parser.TakeMetadata();
  return header;
}

absl::StatusOr<std::string> SafetensorsDtype(torch::ScalarType dtype) {
  const DtypeNames* names = FindDtype(dtype);
  if (names != nullptr && names->safetensors != nullptr) return std::string(names->safetensors);
  return absl::InvalidArgumentError(
      absl::StrCat("dtype ", c10::toString(dtype), " cannot be stored; allowed: ", NamesOf(&DtypeNames::safetensors)));
}

absl::Status CheckTensorName(const std::string& name) {
  if (name != "__metadata__" && IsUtf8(name)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", absl::CHexEscape(name), "': allowed names: UTF-8, but for __metadata__"));
}

absl::StatusOr<std::string> EncodeHeader(const std::vector<TensorSlot>& slots,
                                         const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const TensorSlot& slot : slots) {
    ASSIGN_OR_RETURN(const std::string dtype, SafetensorsDtype(slot.dtype));
    RETURN_IF_ERROR(CheckTensorName(slot.name));
    std::vector<int64_t> shape = slot.shape;
    if (slot.dtype == torch::kFloat4_e2m1fn_x2) {
      if (shape.empty())
        return absl::InvalidArgumentError(absl::StrCat("tensor '", slot.name, "': an F4 tensor without dims"));
      shape.back() *= 2;
    }
    header[slot.name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {slot.begin, slot.end}}};
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  if (static_cast<int64_t>(text.size()) > kMaxHeaderBytes)
    return absl::InvalidArgumentError(absl::StrCat("a header of ", text.size(), " bytes; allowed: ", kMaxHeaderBytes));
  const uint64_t length = text.size();
  std::string encoded(kHeaderLengthBytes, '\0');
  for (int64_t i = 0; i < kHeaderLengthBytes; ++i) encoded[i] = static_cast<char>(length >> (8 * i));
  return encoded + text;
}

}  // namespace athanor

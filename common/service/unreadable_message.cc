#include "common/service/unreadable_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"

namespace athanor {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;

constexpr int kDepth = 100;  // as deep as protobuf reads

class Search {
 public:
  // `offset`: of `bytes` in the whole message.
  std::string In(const Descriptor& type, std::string_view bytes, int offset, const std::string& path, int depth) {
    google::protobuf::io::CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                 static_cast<int>(bytes.size()));
    while (input.CurrentPosition() < static_cast<int>(bytes.size())) {
      const int start = input.CurrentPosition();
      const uint32_t tag = input.ReadTag();
      const FieldDescriptor* field = type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
      const std::string name =
          absl::StrCat(path, path.empty() ? "" : ".",
                       field == nullptr ? absl::StrCat(WireFormatLite::GetTagFieldNumber(tag)) : field->name());
      if (WireFormatLite::GetTagFieldNumber(tag) == 0) return At(path, offset + start, "no field begins here");
      if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
        if (!WireFormatLite::SkipField(&input, tag)) return At(name, offset + start, "its value is cut or of no type");
        continue;
      }
      uint32_t length = 0;
      if (!input.ReadVarint32(&length)) return At(name, offset + start, "its length is cut");
      const size_t left = bytes.size() - static_cast<size_t>(input.CurrentPosition());
      if (length > left) return At(name, offset + start, absl::StrCat(length, " bytes announced, ", left, " there"));
      const int begin = input.CurrentPosition();
      input.Skip(static_cast<int>(length));
      if (std::string found = InField(field, bytes.substr(begin, length), offset + begin, name, depth); !found.empty())
        return found;
    }
    return "";
  }

 private:
  std::string InField(const FieldDescriptor* field, std::string_view bytes, int offset, const std::string& path,
                      int depth) {
    if (field == nullptr) return "";
    if (field->type() == FieldDescriptor::TYPE_STRING) {
      const size_t bad = FirstByteNotUtf8(bytes);
      return bad == std::string::npos ? "" : At(path, offset + static_cast<int>(bad), "not UTF-8");
    }
    if (field->type() != FieldDescriptor::TYPE_MESSAGE) return "";
    if (depth == kDepth) return At(path, offset, absl::StrCat("nested deeper than ", kDepth));
    return In(*field->message_type(), bytes, offset, path, depth + 1);
  }

  static std::string At(const std::string& path, int byte, const std::string& what) {
    return absl::StrCat(path, path.empty() ? "" : ": ", "byte ", byte + 1, ": ", what);
  }
};

}  // namespace

std::string WhyUnreadable(const Descriptor& type, std::string_view bytes) {
  return Search().In(type, bytes, 0, "", 0);
}

}  // namespace athanor

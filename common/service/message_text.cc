#include "common/service/message_text.h"

#include <google/protobuf/descriptor.h>

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"

namespace athanor {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::vector<const FieldDescriptor*> SetFields(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields;
}

const std::string& TextOf(const Message& message, const FieldDescriptor* field, int at, std::string* scratch) {
  const Reflection& reflection = *message.GetReflection();
  return at < 0 ? reflection.GetStringReference(message, field, scratch)
                : reflection.GetRepeatedStringReference(message, field, at, scratch);
}

// "name", "name[2]", or for an entry of a map "name[its key]".
std::string ElementName(const Message& message, const FieldDescriptor* field, int at) {
  if (at < 0) return field->name();
  if (!field->is_map()) return absl::StrCat(field->name(), "[", at, "]");
  const Message& entry = message.GetReflection()->GetRepeatedMessage(message, field, at);
  const FieldDescriptor* key = entry.GetDescriptor()->map_key();
  std::string scratch;
  return absl::StrCat(field->name(), "[",
                      key->type() == FieldDescriptor::TYPE_STRING ? absl::CHexEscape(TextOf(entry, key, -1, &scratch))
                                                                  : absl::StrCat(at),
                      "]");
}

}  // namespace

std::string FindInvalidText(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  std::string scratch;
  for (const FieldDescriptor* field : SetFields(message)) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 0;
    for (int at = field->is_repeated() ? 0 : -1; at < count; ++at) {
      if (field->type() == FieldDescriptor::TYPE_STRING) {
        if (!IsUtf8(TextOf(message, field, at, &scratch))) return ElementName(message, field, at);
      } else if (field->type() == FieldDescriptor::TYPE_MESSAGE) {
        const Message& part =
            at < 0 ? reflection.GetMessage(message, field) : reflection.GetRepeatedMessage(message, field, at);
        const std::string inside = FindInvalidText(part);
        if (inside.empty()) continue;
        return field->is_map() ? ElementName(message, field, at)
                               : absl::StrCat(ElementName(message, field, at), ".", inside);
      }
      if (at < 0) break;
    }
  }
  return "";
}

void MakeTextValid(Message* message) {
  const Reflection& reflection = *message->GetReflection();
  std::string scratch;
  for (const FieldDescriptor* field : SetFields(*message)) {
    const int count = field->is_repeated() ? reflection.FieldSize(*message, field) : 0;
    for (int at = field->is_repeated() ? 0 : -1; at < count; ++at) {
      if (field->type() == FieldDescriptor::TYPE_STRING) {
        const std::string& text = TextOf(*message, field, at, &scratch);
        if (IsUtf8(text)) continue;
        std::string valid = ValidUtf8(text);
        if (at < 0) {
          reflection.SetString(message, field, std::move(valid));
        } else {
          reflection.SetRepeatedString(message, field, at, std::move(valid));
        }
      } else if (field->type() == FieldDescriptor::TYPE_MESSAGE) {
        MakeTextValid(at < 0 ? reflection.MutableMessage(message, field)
                             : reflection.MutableRepeatedMessage(message, field, at));
      }
      if (at < 0) break;
    }
  }
}

}  // namespace athanor

#include "common/service/message_text.h"

#include <google/protobuf/descriptor.h>

#include <vector>

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

// "name" or, of a repeated field, "name[2]".
std::string ElementName(const FieldDescriptor& field, int at) {
  return at < 0 ? field.name() : absl::StrCat(field.name(), "[", at, "]");
}

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

std::string FindIn(const std::string& text, const std::string& path) {
  const size_t bad = FirstByteNotUtf8(text);
  return bad == std::string::npos ? "" : absl::StrCat(path, ": byte ", bad + 1);
}

std::string FindIn(const Message& message, const std::string& path);

// An entry of a map goes by its key, where that is text.
std::string FindInEntry(const Message& entry, const std::string& path, int at) {
  std::string scratch, name = absl::StrCat(at);
  if (const FieldDescriptor* key = entry.GetDescriptor()->map_key(); key->type() == FieldDescriptor::TYPE_STRING) {
    name = TextOf(entry, key, -1, &scratch);
    if (std::string found = FindIn(name, absl::StrCat(path, ", a name")); !found.empty()) return found;
  }
  const FieldDescriptor* value = entry.GetDescriptor()->map_value();
  const std::string below = absl::StrCat(path, "[", name, "]");
  if (value->type() == FieldDescriptor::TYPE_STRING) return FindIn(TextOf(entry, value, -1, &scratch), below);
  return value->type() == FieldDescriptor::TYPE_MESSAGE ? FindIn(entry.GetReflection()->GetMessage(entry, value), below)
                                                        : "";
}

std::string FindInElement(const Message& message, const FieldDescriptor* field, int at, const std::string& path) {
  std::string scratch;
  if (field->type() == FieldDescriptor::TYPE_STRING)
    return FindIn(TextOf(message, field, at, &scratch), Join(path, ElementName(*field, at)));
  if (field->type() != FieldDescriptor::TYPE_MESSAGE) return "";
  const Reflection& reflection = *message.GetReflection();
  const Message& part =
      at < 0 ? reflection.GetMessage(message, field) : reflection.GetRepeatedMessage(message, field, at);
  return field->is_map() ? FindInEntry(part, Join(path, field->name()), at)
                         : FindIn(part, Join(path, ElementName(*field, at)));
}

std::string FindIn(const Message& message, const std::string& path) {
  for (const FieldDescriptor* field : SetFields(message)) {
    const int count = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 0;
    for (int at = field->is_repeated() ? 0 : -1; at < count; ++at) {
      if (std::string found = FindInElement(message, field, at, path); !found.empty()) return found;
      if (at < 0) break;
    }
  }
  return "";
}

}  // namespace

std::string FindInvalidText(const Message& message) {
  return FindIn(message, "");
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

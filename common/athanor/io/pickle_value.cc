#include "absl/strings/str_cat.h"
#include "athanor/io/pickle_reader.h"

namespace athanor {

std::vector<std::pair<const PickleValue*, const PickleValue*>> PickleValue::Entries() const {
  std::vector<std::pair<const PickleValue*, const PickleValue*>> entries;
  if (kind != PickleValue::Kind::kDict) return entries;
  for (size_t i = 0; i + 1 < items.size(); i += 2) entries.emplace_back(items[i], items[i + 1]);
  return entries;
}

const PickleValue* PickleValue::Find(std::string_view key) const {
  const PickleValue* found = nullptr;
  for (const auto& [name, value] : Entries()) {
    if (name->kind == PickleValue::Kind::kString && name->text == key) found = value;
  }
  return found;
}

std::string Describe(const PickleValue& value) {
  switch (value.kind) {
    case PickleValue::Kind::kNone:
      return "None";
    case PickleValue::Kind::kBool:
      return "a bool";
    case PickleValue::Kind::kInt:
      return "an integer";
    case PickleValue::Kind::kLong:
      return "an integer of more than 64 bits";
    case PickleValue::Kind::kFloat:
      return "a number";
    case PickleValue::Kind::kString:
      return "a text";
    case PickleValue::Kind::kBytes:
      return "bytes";
    case PickleValue::Kind::kList:
      return "a list";
    case PickleValue::Kind::kTuple:
      return "a tuple";
    case PickleValue::Kind::kSet:
      return "a set";
    case PickleValue::Kind::kDict:
      return "a dictionary";
    case PickleValue::Kind::kGlobal:
      return value.text;
    case PickleValue::Kind::kCall:
      return value.items[0]->Is(PickleValue::Kind::kGlobal) ? absl::StrCat("a call of ", value.items[0]->text)
                                                            : "a call";
    case PickleValue::Kind::kPersistent:
      return "a storage";
  }
  return "";
}

}  // namespace athanor

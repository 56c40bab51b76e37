#include "athanor/io/pickle_reader.h"

#include <bit>
#include <cstring>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

using Kind = PickleValue::Kind;
constexpr size_t kMaxGlobalPart = 256;  // bytes of a module, and of a name in it

class Machine {
 public:
  Machine(const std::string& name, std::string_view bytes) : name_(name), bytes_(bytes) {}

  absl::StatusOr<PickleDocument> Run() {
    while (true) {
      const size_t at = at_;
      std::string_view code;
      if (!Take(1, &code)) return Error(at, "ends without STOP");
      if (code[0] == '.') break;
      if (!Step(static_cast<unsigned char>(code[0])))
        return Error(at, absl::StrFormat("opcode 0x%02x %s", static_cast<unsigned char>(code[0]), why_));
    }
    if (stack_.size() != 1 || stack_[0] == nullptr) return Error(at_, "does not leave one value");
    document_.root = stack_[0];
    return std::move(document_);
  }

 private:
  absl::Status Error(size_t at, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(name_, ": pickle at byte ", at, ": ", what));
  }

  bool Fail(const char* why) {
    why_ = why;
    return false;
  }

  bool Take(uint64_t count, std::string_view* out) {
    if (count > bytes_.size() - at_) return Fail("runs past the end");
    *out = bytes_.substr(at_, count);
    at_ += count;
    return true;
  }

  // An unsigned little-endian number of `width` bytes.
  bool TakeNumber(int width, uint64_t* out) {
    std::string_view raw;
    if (!Take(static_cast<uint64_t>(width), &raw)) return false;
    *out = 0;
    for (int i = 0; i < width; ++i) *out |= uint64_t{static_cast<unsigned char>(raw[i])} << (8 * i);
    return true;
  }

  bool TakeLine(std::string_view* out) {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) return Fail("has no end of line");
    *out = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return true;
  }

  PickleValue* Push(Kind kind) {
    PickleValue& value = document_.values.emplace_back();
    value.kind = kind;
    stack_.push_back(&value);
    return &value;
  }

  bool PushInteger(int64_t integer) {
    Push(Kind::kInt)->integer = integer;
    return true;
  }

  bool PushText(Kind kind, int length_width) {
    uint64_t length = 0;
    std::string_view text;
    if (!TakeNumber(length_width, &length) || !Take(length, &text)) return false;
    Push(kind)->text = std::string(text);
    return true;
  }

  bool Pop(PickleValue** out) {
    if (stack_.empty() || stack_.back() == nullptr) return Fail("finds no value");
    *out = stack_.back();
    stack_.pop_back();
    return true;
  }

  // What lies above the newest mark, which goes too.
  bool PopToMark(std::vector<const PickleValue*>* out) {
    size_t mark = stack_.size();
    while (mark > 0 && stack_[mark - 1] != nullptr) --mark;
    if (mark == 0) return Fail("finds no mark");
    out->assign(stack_.begin() + static_cast<std::ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return true;
  }

  bool PushTuple(size_t count) {
    std::vector<const PickleValue*> items(count);
    for (size_t i = count; i-- > 0;) {
      PickleValue* item = nullptr;
      if (!Pop(&item)) return false;
      items[i] = item;
    }
    Push(Kind::kTuple)->items = std::move(items);
    return true;
  }

  // Appends to the container below: a list takes any number, a dictionary pairs.
  bool Extend(const std::vector<const PickleValue*>& items, bool pairs) {
    if (stack_.empty() || stack_.back() == nullptr) return Fail("finds no container");
    PickleValue* target = stack_.back();
    if (pairs && items.size() % 2 != 0) return Fail("has a key without a value");
    // An object that fills itself (a call) may be extended: what is added is kept with it and means nothing.
    const bool fits = pairs ? target->kind == Kind::kDict : target->kind == Kind::kList;
    if (!fits && target->kind != Kind::kCall) return Fail("extends something else than a container");
    if (fits) target->items.insert(target->items.end(), items.begin(), items.end());
    return true;
  }

  bool Reduce() {
    PickleValue *arguments = nullptr, *callee = nullptr;
    if (!Pop(&arguments) || !Pop(&callee)) return false;
    if (arguments->kind != Kind::kTuple) return Fail("calls without a tuple of arguments");
    const bool dictionary = callee->kind == Kind::kGlobal && callee->text == "collections.OrderedDict";
    PickleValue* made = Push(dictionary ? Kind::kDict : Kind::kCall);
    if (dictionary) return true;
    made->items = {callee, arguments};
    return true;
  }

  bool Memoize(uint64_t index) {
    if (stack_.empty() || stack_.back() == nullptr) return Fail("has nothing to remember");
    memo_[index] = stack_.back();
    return true;
  }

  bool Recall(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) return Fail("recalls what was never remembered");
    stack_.push_back(found->second);
    return true;
  }

  // A memoized text costs two bytes a time: long ones would multiply.
  bool PushGlobal(std::string_view module, std::string_view name) {
    if (module.size() > kMaxGlobalPart || name.size() > kMaxGlobalPart) return Fail("names a global of great length");
    Push(Kind::kGlobal)->text = absl::StrCat(std::string(module), ".", std::string(name));
    return true;
  }

  bool StepScalar(unsigned char code) {
    uint64_t raw = 0;
    std::string_view bytes;
    switch (code) {
      case 'N':
        Push(Kind::kNone);
        return true;
      case 0x88:
      case 0x89:
        Push(Kind::kBool)->integer = code == 0x88;
        return true;
      case 'K':
        return TakeNumber(1, &raw) && PushInteger(static_cast<int64_t>(raw));
      case 'M':
        return TakeNumber(2, &raw) && PushInteger(static_cast<int64_t>(raw));
      case 'J':
        return TakeNumber(4, &raw) && PushInteger(static_cast<int32_t>(raw));
      case 0x8a: {  // LONG1: two's complement of up to 8 bytes
        if (!TakeNumber(1, &raw)) return false;
        if (raw > 8) return Fail("holds an integer of more than 64 bits");
        const int width = static_cast<int>(raw);
        if (!TakeNumber(width, &raw)) return false;
        if (width > 0 && width < 8 && (raw >> (8 * width - 1) & 1) != 0) raw |= ~uint64_t{0} << (8 * width);
        return PushInteger(static_cast<int64_t>(raw));
      }
      case 'G': {  // big-endian double
        if (!Take(8, &bytes)) return false;
        for (const char byte : bytes) raw = raw << 8 | static_cast<unsigned char>(byte);
        Push(Kind::kFloat)->number = std::bit_cast<double>(raw);
        return true;
      }
      default:
        return Fail("is not supported");
    }
  }

  bool StepText(unsigned char code) {
    std::string_view module, name;
    switch (code) {
      case 'X':
        return PushText(Kind::kString, 4);
      case 0x8c:
        return PushText(Kind::kString, 1);
      case 0x8d:
        return PushText(Kind::kString, 8);
      case 'B':
        return PushText(Kind::kBytes, 4);
      case 'C':
        return PushText(Kind::kBytes, 1);
      case 0x8e:
        return PushText(Kind::kBytes, 8);
      case 'c':
        return TakeLine(&module) && TakeLine(&name) && PushGlobal(module, name);
      case 0x93: {  // STACK_GLOBAL
        PickleValue *last = nullptr, *first = nullptr;
        if (!Pop(&last) || !Pop(&first)) return false;
        if (last->kind != Kind::kString || first->kind != Kind::kString) return Fail("names a global by no text");
        return PushGlobal(first->text, last->text);
      }
      default:
        return StepScalar(code);
    }
  }

  bool StepContainer(unsigned char code) {
    std::vector<const PickleValue*> items;
    PickleValue* value = nullptr;
    switch (code) {
      case '(':
        stack_.push_back(nullptr);
        return true;
      case ')':
        return PushTuple(0);
      case 0x85:
      case 0x86:
      case 0x87:
        return PushTuple(code - 0x84u);
      case 't':
        if (!PopToMark(&items)) return false;
        Push(Kind::kTuple)->items = std::move(items);
        return true;
      case ']':
        Push(Kind::kList);
        return true;
      case '}':
        Push(Kind::kDict);
        return true;
      case 'a':
        return Pop(&value) && Extend({value}, false);
      case 'e':
        return PopToMark(&items) && Extend(items, false);
      case 's': {
        PickleValue* key = nullptr;
        return Pop(&value) && Pop(&key) && Extend({key, value}, true);
      }
      case 'u':
        return PopToMark(&items) && Extend(items, true);
      default:
        return StepText(code);
    }
  }

  bool Step(unsigned char code) {
    uint64_t raw = 0;
    std::string_view bytes;
    PickleValue* value = nullptr;
    switch (code) {
      case 0x80:  // PROTO
        return Take(1, &bytes);
      case 0x95:  // FRAME
        return Take(8, &bytes);
      case 'q':
        return TakeNumber(1, &raw) && Memoize(raw);
      case 'r':
        return TakeNumber(4, &raw) && Memoize(raw);
      case 0x94:  // MEMOIZE
        return Memoize(memo_.size());
      case 'h':
        return TakeNumber(1, &raw) && Recall(raw);
      case 'j':
        return TakeNumber(4, &raw) && Recall(raw);
      case 'R':
      case 0x81:  // NEWOBJ
        return Reduce();
      case 'b':  // BUILD: the state of an object; dropped
        return Pop(&value) && !stack_.empty() && stack_.back() != nullptr ? true : Fail("finds no object");
      case '0':
        return Pop(&value);
      case 'Q':  // BINPERSID
        if (!Pop(&value)) return false;
        Push(Kind::kPersistent)->items = {value};
        return true;
      default:
        return StepContainer(code);
    }
  }

  const std::string& name_;
  const std::string_view bytes_;
  size_t at_ = 0;
  const char* why_ = "";
  PickleDocument document_;
  std::vector<PickleValue*> stack_;  // null: a mark
  std::map<uint64_t, PickleValue*> memo_;
};

}  // namespace

std::vector<std::pair<const PickleValue*, const PickleValue*>> PickleValue::Entries() const {
  std::vector<std::pair<const PickleValue*, const PickleValue*>> entries;
  if (kind != Kind::kDict) return entries;
  for (size_t i = 0; i + 1 < items.size(); i += 2) entries.emplace_back(items[i], items[i + 1]);
  return entries;
}

const PickleValue* PickleValue::Find(std::string_view key) const {
  const PickleValue* found = nullptr;
  for (const auto& [name, value] : Entries()) {
    if (name->kind == Kind::kString && name->text == key) found = value;
  }
  return found;
}

absl::StatusOr<PickleDocument> ParsePickle(const std::string& name, std::string_view bytes) {
  return Machine(name, bytes).Run();
}

}  // namespace athanor

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

  // Appends to the container below: of a dictionary `items` are pairs.
  bool Extend(Kind kind, const std::vector<const PickleValue*>& items) {
    if (stack_.empty() || stack_.back() == nullptr) return Fail("finds no container");
    PickleValue* target = stack_.back();
    const bool pairs = kind == Kind::kDict;
    if (pairs && items.size() % 2 != 0) return Fail("has a key without a value");
    if (target->kind == Kind::kCall && pairs) {  // a dictionary of another class, which so becomes one
      target->kind = kind;
      target->items.clear();
    }
    // Another object that fills itself (a call) may be extended: what is added means nothing.
    if (target->kind != kind && target->kind != Kind::kCall) return Fail("extends something else than a container");
    if (target->kind == kind) target->items.insert(target->items.end(), items.begin(), items.end());
    return true;
  }

  bool Make(Kind kind) {
    std::vector<const PickleValue*> items;
    if (!PopToMark(&items)) return false;
    if (kind == Kind::kDict && items.size() % 2 != 0) return Fail("has a key without a value");
    Push(kind)->items = std::move(items);
    return true;
  }

  bool Reduce() {
    PickleValue *arguments = nullptr, *callee = nullptr;
    if (!Pop(&arguments) || !Pop(&callee)) return false;
    if (arguments->kind != Kind::kTuple) return Fail("calls without a tuple of arguments");
    return PushCall(callee, arguments);
  }

  bool PushCall(const PickleValue* callee, const PickleValue* arguments) {
    const bool dictionary = callee->kind == Kind::kGlobal && callee->text == "collections.OrderedDict";
    PickleValue* made = Push(dictionary ? Kind::kDict : Kind::kCall);
    if (!dictionary) {
      made->items = {callee, arguments};
    } else if (!arguments->items.empty()) {  // Python 2: a list of lists of two
      for (const PickleValue* pair : arguments->items[0]->items) {
        // A remembered list costs three bytes a time.
        if (pair->items.size() != 2 || ++copied_ > bytes_.size()) return Fail("has no pairs");
        made->items.insert(made->items.end(), pair->items.begin(), pair->items.end());
      }
    }
    return true;
  }

  // The state of an object: kept of a call, dropped of what has become a container.
  bool Build() {
    PickleValue* state = nullptr;
    if (!Pop(&state)) return false;
    if (stack_.empty() || stack_.back() == nullptr) return Fail("finds no object");
    PickleValue* object = stack_.back();
    if (object->Is(Kind::kCall)) object->state = state;
    return true;
  }

  // OBJ and INST: a class, then what its constructor takes, above a mark.
  bool CallToMark(const PickleValue* callee) {
    std::vector<const PickleValue*> items;
    if (!PopToMark(&items)) return false;
    if (callee == nullptr) {
      if (items.empty()) return Fail("finds no class");
      callee = items.front();
      items.erase(items.begin());
    }
    PickleValue& arguments = document_.values.emplace_back();
    arguments.kind = Kind::kTuple;
    arguments.items = std::move(items);
    return PushCall(callee, &arguments);
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

  bool PushLong(uint64_t width) {
    constexpr uint64_t kWord = 8;
    uint64_t raw = 0;
    std::string_view bytes;
    if (!Take(width, &bytes)) return false;
    while (bytes.size() > kWord) {  // bytes that only repeat the sign
      const bool negative = (static_cast<unsigned char>(bytes[bytes.size() - 2]) & 0x80) != 0;
      if (static_cast<unsigned char>(bytes.back()) != (negative ? 0xff : 0)) {
        Push(Kind::kLong);
        return true;
      }
      bytes.remove_suffix(1);
    }
    for (size_t i = 0; i < bytes.size(); ++i) raw |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    if (!bytes.empty() && bytes.size() < kWord && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0)
      raw |= ~uint64_t{0} << (8 * bytes.size());
    return PushInteger(static_cast<int64_t>(raw));
  }

  // Decimal digits, of a long one with an L behind; 00 and 01 are False and True.
  bool PushWritten() {
    std::string_view line;
    if (!TakeLine(&line)) return false;
    if (line == "00" || line == "01") {
      Push(Kind::kBool)->integer = line == "01";
      return true;
    }
    if (!line.empty() && line.back() == 'L') line.remove_suffix(1);
    int64_t integer = 0;
    if (absl::SimpleAtoi({line.data(), line.size()}, &integer)) return PushInteger(integer);
    if (line.find_first_not_of("-0123456789") != std::string_view::npos || line.size() < 2)
      return Fail("holds no integer");
    Push(Kind::kLong);
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
      case 0x8a:  // LONG1, LONG4: bytes in two's complement
      case 0x8b:
        return TakeNumber(code == 0x8a ? 1 : 4, &raw) && PushLong(raw);
      case 'I':
      case 'L':
        return PushWritten();
      case 'F': {
        double number = 0;
        if (!TakeLine(&bytes)) return false;
        if (!absl::SimpleAtod({bytes.data(), bytes.size()}, &number)) return Fail("holds no number");
        Push(Kind::kFloat)->number = number;
        return true;
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

  // Of text in protocol 0; escapes stay as they are written.
  static std::string_view Unquoted(std::string_view line) {
    const bool quoted = line.size() >= 2 && (line[0] == '\'' || line[0] == '"') && line.back() == line[0];
    return quoted ? line.substr(1, line.size() - 2) : line;
  }

  bool StepText(unsigned char code) {
    std::string_view module, name;
    switch (code) {
      case 'X':
      case 'T':
        return PushText(Kind::kString, 4);
      case 'U':
        return PushText(Kind::kString, 1);
      case 'S':
      case 'V':
        if (!TakeLine(&module)) return false;
        Push(Kind::kString)->text = std::string(Unquoted(module));
        return true;
      case 0x8c:
        return PushText(Kind::kString, 1);
      case 0x8d:
        return PushText(Kind::kString, 8);
      case 'B':
        return PushText(Kind::kBytes, 4);
      case 'C':
        return PushText(Kind::kBytes, 1);
      case 0x8e:
      case 0x96:  // BYTEARRAY8
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
        return Make(Kind::kTuple);
      case 'l':
        return Make(Kind::kList);
      case 'd':
        return Make(Kind::kDict);
      case 0x91:  // FROZENSET
        return Make(Kind::kSet);
      case ']':
        Push(Kind::kList);
        return true;
      case '}':
        Push(Kind::kDict);
        return true;
      case 0x8f:  // EMPTY_SET
        Push(Kind::kSet);
        return true;
      case 'a':
        return Pop(&value) && Extend(Kind::kList, {value});
      case 'e':
        return PopToMark(&items) && Extend(Kind::kList, items);
      case 's': {
        PickleValue* key = nullptr;
        return Pop(&value) && Pop(&key) && Extend(Kind::kDict, {key, value});
      }
      case 'u':
        return PopToMark(&items) && Extend(Kind::kDict, items);
      case 0x90:  // ADDITEMS
        return PopToMark(&items) && Extend(Kind::kSet, items);
      default:
        return StepText(code);
    }
  }

  bool StepMemo(unsigned char code) {
    uint64_t raw = 0;
    switch (code) {
      case 'q':
        return TakeNumber(1, &raw) && Memoize(raw);
      case 'r':
        return TakeNumber(4, &raw) && Memoize(raw);
      case 'p':
        return TakeIndex(&raw) && Memoize(raw);
      case 0x94:  // MEMOIZE
        return Memoize(memo_.size());
      case 'h':
        return TakeNumber(1, &raw) && Recall(raw);
      case 'j':
        return TakeNumber(4, &raw) && Recall(raw);
      case 'g':
        return TakeIndex(&raw) && Recall(raw);
      default:
        return StepContainer(code);
    }
  }

  bool TakeIndex(uint64_t* index) {
    std::string_view line;
    if (!TakeLine(&line)) return false;
    return absl::SimpleAtoi({line.data(), line.size()}, index) ? true : Fail("holds no number");
  }

  bool Step(unsigned char code) {
    std::string_view bytes, name;
    std::vector<const PickleValue*> items;
    PickleValue* value = nullptr;
    switch (code) {
      case 0x80:  // PROTO
        return Take(1, &bytes);
      case 0x95:  // FRAME
        return Take(8, &bytes);
      case 'R':
      case 0x81:  // NEWOBJ
        return Reduce();
      case 0x92:  // NEWOBJ_EX: with arguments by name, which mean nothing here
        return Pop(&value) && Reduce();
      case 'o':  // OBJ
        return CallToMark(nullptr);
      case 'i':  // INST
        if (!TakeLine(&bytes) || !TakeLine(&name) || !PushGlobal(bytes, name) || !Pop(&value)) return false;
        return CallToMark(value);
      case 'b':  // BUILD
        return Build();
      case '0':
        return Pop(&value);
      case '1':  // POP_MARK
        return PopToMark(&items);
      case '2':  // DUP
        if (stack_.empty() || stack_.back() == nullptr) return Fail("finds no value");
        stack_.push_back(stack_.back());
        return true;
      case 0x97:  // NEXT_BUFFER
        return Fail("takes a buffer from outside of the pickle");
      case 0x98:  // READONLY_BUFFER
        return true;
      case 'P':  // PERSID
        if (!TakeLine(&bytes)) return false;
        Push(Kind::kString)->text = std::string(bytes);
        [[fallthrough]];
      case 'Q':  // BINPERSID
        if (!Pop(&value)) return false;
        Push(Kind::kPersistent)->items = {value};
        return true;
      default:
        return StepMemo(code);
    }
  }

  const std::string& name_;
  const std::string_view bytes_;
  size_t at_ = 0, copied_ = 0;
  const char* why_ = "";
  PickleDocument document_;
  std::vector<PickleValue*> stack_;  // null: a mark
  std::map<uint64_t, PickleValue*> memo_;
};

}  // namespace

absl::StatusOr<PickleDocument> ParsePickle(const std::string& name, std::string_view bytes) {
  return Machine(name, bytes).Run();
}

}  // namespace athanor

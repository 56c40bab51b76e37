// Reads the data of a Python pickle without executing anything: what would call a Python function becomes a plain
// record of the call.
//
//   ASSIGN_OR_RETURN(PickleDocument document, ParsePickle("weights.pt", bytes));
//   for (const auto& [key, value] : document.root->Entries()) ...
//
// Every opcode of protocols 0 to 5 but those of Python's extension registry. A dictionary of another class
// (OrderedDict, defaultdict, one of the user's) is a dictionary. Hostile input costs memory in proportion to its size,
// and ends in DATA_LOSS with the offset; nothing recurses. A document is immutable; reading it is thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kLong,  // an integer of more than 64 bits, which is not kept
    kFloat,
    kString,
    kBytes,  // a bytearray too
    kList,
    kTuple,
    kSet,         // a frozenset too
    kDict,        // items: key, value, key, value …
    kGlobal,      // text: "module.name"
    kCall,        // items: callee, arguments (a tuple); what a REDUCE would have called
    kPersistent,  // items: the id
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;  // of kBool too
  double number = 0;
  std::string text;
  std::vector<const PickleValue*> items;
  const PickleValue* state = nullptr;  // of kCall: what its __setstate__, or its __dict__, would have got

  bool Is(Kind other) const { return kind == other; }
  // Of a dictionary; a later entry with an equal string key replaces an earlier one when it is read by Find().
  std::vector<std::pair<const PickleValue*, const PickleValue*>> Entries() const;
  const PickleValue* Find(std::string_view key) const;  // null: not there
};

struct PickleDocument {
  std::deque<PickleValue> values;  // owns every value: destruction does not recurse
  const PickleValue* root = nullptr;
};

// What a value is, for messages: "an integer", "a call of numpy.core.multiarray._reconstruct".
std::string Describe(const PickleValue& value);

// `name` is for messages.
absl::StatusOr<PickleDocument> ParsePickle(const std::string& name, std::string_view bytes);

}  // namespace athanor

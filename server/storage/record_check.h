// A check of its own at the end of each stored value. Where a block of RocksDB's tables is damaged, it tells the
// records of that block that are as they were written from those that are not. To a reader of the message it is a field
// that it does not know: number 2047, the CRC32C of the key and of what stands before it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace athanor {

enum class RecordCheck : uint8_t {
  kNone,  // written by a version that made none
  kGood,
  kBad,
};

void AddCheck(std::string_view key, std::string& value);
RecordCheck CheckOf(std::string_view key, std::string_view value);
std::string_view WithoutCheck(std::string_view value);

}  // namespace athanor

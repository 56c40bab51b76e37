#include "server/storage/record_check.h"

#include "athanor/base/crc32c.h"

namespace athanor {
namespace {

constexpr std::string_view kTag = "\xfd\x7f";  // of protobuf: field 2047, four bytes
constexpr size_t kBytes = 6;

std::string Check(std::string_view key, std::string_view value) {
  const uint32_t crc = Crc32c(Crc32c(0, key.data(), key.size()), value.data(), value.size());
  std::string check(kTag);
  for (int shift = 0; shift < 32; shift += 8) check.push_back(static_cast<char>(crc >> shift & 0xff));
  return check;
}

}  // namespace

void AddCheck(std::string_view key, std::string& value) {
  value += Check(key, value);
}

std::string_view WithoutCheck(std::string_view value) {
  const bool has = value.size() >= kBytes && value.substr(value.size() - kBytes, kTag.size()) == kTag;
  return has ? value.substr(0, value.size() - kBytes) : value;
}

RecordCheck CheckOf(std::string_view key, std::string_view value) {
  const std::string_view before = WithoutCheck(value);
  if (before.size() == value.size()) return RecordCheck::kNone;
  return value.substr(before.size()) == Check(key, before) ? RecordCheck::kGood : RecordCheck::kBad;
}

}  // namespace athanor

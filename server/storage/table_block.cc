#include "server/storage/table_block.h"

#include <algorithm>
#include <regex>

#include "absl/strings/numbers.h"
#include "server/storage/record_check.h"

namespace athanor {
namespace {

constexpr size_t kTrailer = 8;  // of a key: its sequence and what was done
constexpr uint8_t kDeletion = 0, kPut = 1;

uint64_t Little(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i - 1]);
  return value;
}

// False: it does not end within `from`.
bool TakeVarint(std::string_view* from, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 35 && !from->empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(from->front());
    from->remove_prefix(1);
    *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Where entries begin, as the end of the block says; one past the last is where they end.
std::vector<size_t> EntryBorders(std::string_view block) {
  if (block.size() < 4) return {};
  const uint64_t count = Little(block.substr(block.size() - 4)) & 0x7fffffff;
  if (count > block.size() / 4 - 1) return {};
  const size_t end = block.size() - 4 - 4 * count;
  std::vector<size_t> borders = {0, end};
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = Little(block.substr(end + 4 * i, 4));
    if (at < end) borders.push_back(at);
  }
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  return borders;
}

// One entry at the start of `bytes`; its length, or 0.
size_t ParseEntry(std::string_view bytes, RawRecord* record, uint8_t* type) {
  std::string_view rest = bytes;
  uint64_t shared = 0, own = 0, value = 0;
  if (!TakeVarint(&rest, &shared) || !TakeVarint(&rest, &own) || !TakeVarint(&rest, &value)) return 0;
  if (shared != 0 || own < kTrailer || own > rest.size() || value > rest.size() - own) return 0;
  const uint64_t trailer = Little(rest.substr(own - kTrailer, kTrailer));
  record->key = std::string(rest.substr(0, own - kTrailer));
  record->value = std::string(rest.substr(own, value));
  record->sequence = trailer >> 8;
  *type = static_cast<uint8_t>(trailer & 0xff);
  return bytes.size() - rest.size() + own + value;
}

}  // namespace

std::optional<BlockPlace> DamagedBlock(const rocksdb::Status& status) {
  static const std::regex& pattern = *new std::regex(R"( in (\S+) offset (\d+) size (\d+))");
  const std::string text = status.ToString();
  std::smatch found;
  BlockPlace place;
  if (!status.IsCorruption() || !std::regex_search(text, found, pattern)) return std::nullopt;
  place.file = found[1];
  if (!absl::SimpleAtoi(found[2].str(), &place.offset) || !absl::SimpleAtoi(found[3].str(), &place.size))
    return std::nullopt;
  return place;
}

std::optional<RawRecord> FirstRecord(std::string_view bytes) {
  RawRecord record;
  uint8_t type = kPut;
  return ParseEntry(bytes, &record, &type) > 0 ? std::optional(std::move(record)) : std::nullopt;
}

std::vector<RawRecord> ParseBlock(std::string_view block) {
  std::vector<RawRecord> records;
  std::vector<size_t> borders = EntryBorders(block);
  if (borders.empty()) borders.push_back(block.size());
  bool good = true;
  // Its own check tells a good entry where the list of borders is damaged.
  const auto goes_on = [&](size_t at) {
    return at < borders.back() ||
           (good && at < block.size() && !std::binary_search(borders.begin(), borders.end(), at));
  };
  for (size_t at = 0; goes_on(at);) {
    RawRecord record;
    uint8_t type = kPut;
    const size_t length = ParseEntry(block.substr(at), &record, &type);
    good = length > 0 && CheckOf(record.key, record.value) == RecordCheck::kGood;
    const bool ends = good || (length > 0 && std::binary_search(borders.begin(), borders.end(), at + length));
    const auto border = std::upper_bound(borders.begin(), borders.end(), at);
    const size_t next = ends ? at + length : border == borders.end() ? block.size() : *border;
    if (!ends) {
      record.value = std::string(block.substr(at, next - at));
      record.well_formed = false;
    } else if (type != kPut && !(type == kDeletion && record.value.empty())) {
      record.well_formed = false;
    }
    at = next;
    if (type != kDeletion || !record.well_formed) records.push_back(std::move(record));
  }
  return records;
}

}  // namespace athanor

// The records of one data block of RocksDB's tables, read without RocksDB, whose own reader ends the process on a block
// that is not well formed. Only blocks as this store writes them: not compressed, each key whole.
#pragma once

#include <rocksdb/status.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace athanor {

struct BlockPlace {
  std::string file;
  uint64_t offset = 0, size = 0;
  friend auto operator<=>(const BlockPlace&, const BlockPlace&) = default;
};

// The block that RocksDB says is damaged.
std::optional<BlockPlace> DamagedBlock(const rocksdb::Status& status);

struct RawRecord {
  std::string key, value;
  uint64_t sequence = 0;
  bool well_formed = true;  // a put whose bytes are where the block says; nothing is known of the others
};

// Never fails: what cannot be taken apart becomes records that are not well formed. Deletions are left out.
std::vector<RawRecord> ParseBlock(std::string_view block);
// Of a block that goes on beyond `bytes`, or ends in them.
std::optional<RawRecord> FirstRecord(std::string_view bytes);

}  // namespace athanor

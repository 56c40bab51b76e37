// Reads records past damaged blocks of RocksDB's tables.
#pragma once

#include <rocksdb/db.h>

#include <functional>
#include <string>
#include <string_view>

namespace athanor {

struct TableScan {
  rocksdb::Status status;  // not OK: what is there cannot be told
  std::string damage;      // of the first damaged block; empty: none was met
};

// `value` comes without its check. `intact`: the record is as it was written. False: enough.
using OnRecord = std::function<bool(std::string_view key, std::string_view value, bool intact)>;

// Records of `prefix`, from the key `from` on, in order. Of a block that fails RocksDB's checksum the records count as
// intact by their own check; those without one do not.
TableScan ScanTables(rocksdb::DB& db, const std::string& from, const std::string& prefix, const OnRecord& on_record);

// One record: NotFound, or Corruption when it is there and not intact.
rocksdb::Status GetRecord(rocksdb::DB& db, const std::string& key, std::string* value);

}  // namespace athanor

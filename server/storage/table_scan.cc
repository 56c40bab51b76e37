#include "server/storage/table_scan.h"

#include <rocksdb/metadata.h>
#include <rocksdb/sst_file_reader.h>

#include <fstream>
#include <map>
#include <memory>
#include <set>

#include "server/storage/record_check.h"
#include "server/storage/table_block.h"

namespace athanor {
namespace {

rocksdb::ReadOptions Uncached() {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return options;
}

std::string ReadBlock(const BlockPlace& place) {
  std::string bytes(place.size, '\0');
  std::ifstream file(place.file, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(place.offset));
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  return bytes;
}

bool IsGood(const RawRecord& record) {
  return record.well_formed && CheckOf(record.key, record.value) == RecordCheck::kGood;
}

// All keys of a stretch of the store, and the records of damaged blocks in it.
class Keys {
 public:
  Keys(rocksdb::DB& db, std::string from, std::string prefix)
      : db_(db), from_(std::move(from)), prefix_(std::move(prefix)) {}

  // Not OK: a table has lost more than blocks of records.
  rocksdb::Status Collect() {
    rocksdb::ReadOptions recent = Uncached();
    recent.read_tier = rocksdb::kMemtableTier;
    const std::unique_ptr<rocksdb::Iterator> it(db_.NewIterator(recent));
    for (it->Seek(from_); it->Valid() && Wanted(it->key()); it->Next()) keys_.insert(it->key().ToString());
    if (!it->status().ok()) return it->status();
    std::vector<rocksdb::LiveFileMetaData> files;
    db_.GetLiveFilesMetaData(&files);
    for (const rocksdb::LiveFileMetaData& file : files) {
      if (rocksdb::Status status = CollectFile(file.db_path + file.name); !status.ok()) return status;
    }
    return rocksdb::Status::OK();
  }

  const std::set<std::string>& keys() const { return keys_; }
  // The newest good one of this key in a damaged block.
  const RawRecord* Raw(const std::string& key) const {
    const auto it = raw_.find(key);
    return it == raw_.end() ? nullptr : &it->second;
  }
  const std::map<std::string, RawRecord>& bad() const { return bad_; }

 private:
  bool Wanted(const rocksdb::Slice& key) const { return key.compare(from_) >= 0 && key.starts_with(prefix_); }

  void TakeBlock(const BlockPlace& place) {
    for (RawRecord& record : ParseBlock(ReadBlock(place))) {
      const bool good = IsGood(record);
      // What is not good may have any key, another's too.
      if (good ? !Wanted(record.key) : !prefix_.empty() && !Wanted(record.key)) continue;
      std::map<std::string, RawRecord>& records = good ? raw_ : bad_;
      RawRecord& newest = records[record.key];
      if (good) keys_.insert(record.key);
      if (newest.key.empty() || record.sequence >= newest.sequence) newest = std::move(record);
    }
  }

  // Of the block behind: RocksDB's index may take every key before it for one of the damaged block.
  std::optional<std::string> FirstKeyBehind(const BlockPlace& place) {
    constexpr uint64_t kBlockTrailer = 5, kLongestRecord = 8 << 20;
    const std::string bytes = ReadBlock({place.file, place.offset + place.size + kBlockTrailer, kLongestRecord});
    const std::optional<RawRecord> first = FirstRecord(bytes);
    std::string value;
    if (!first.has_value()) return std::nullopt;
    const bool known = IsGood(*first) || db_.Get(Uncached(), first->key, &value).ok();
    return known ? std::optional(first->key) : std::nullopt;
  }

  rocksdb::Status CollectFile(const std::string& path) {
    rocksdb::SstFileReader table((rocksdb::Options(db_.GetOptions())));
    if (rocksdb::Status status = table.Open(path); !status.ok()) return status;
    const uint64_t data_size = table.GetTableProperties()->data_size;
    std::set<BlockPlace> met;
    std::string next = from_;
    while (true) {
      const std::unique_ptr<rocksdb::Iterator> it(table.NewIterator(Uncached()));
      it->Seek(next);
      for (; it->Valid() && Wanted(it->key()); it->Next()) keys_.insert(it->key().ToString());
      if (it->status().ok()) return it->status();
      const std::optional<BlockPlace> place = DamagedBlock(it->status());
      const bool of_records = place.has_value() && place->offset + place->size <= data_size;
      if (!of_records || !met.insert(*place).second) return it->status();
      TakeBlock(*place);
      constexpr uint64_t kLeastBlock = 16;
      if (place->offset + place->size + kLeastBlock > data_size) return rocksdb::Status::OK();
      const std::optional<std::string> behind = FirstKeyBehind(*place);
      if (!behind.has_value()) return it->status();
      next = *behind;
    }
  }

  rocksdb::DB& db_;
  const std::string from_, prefix_;
  std::set<std::string> keys_;
  std::map<std::string, RawRecord> raw_, bad_;
};

}  // namespace

TableScan ScanTables(rocksdb::DB& db, const std::string& from, const std::string& prefix, const OnRecord& on_record) {
  TableScan scan;
  std::string next = from;
  std::unique_ptr<rocksdb::Iterator> it(db.NewIterator(Uncached()));
  for (it->Seek(from); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    const std::string_view key = it->key().ToStringView(), value = it->value().ToStringView();
    if (!on_record(key, WithoutCheck(value), CheckOf(key, value) != RecordCheck::kBad)) return scan;
    next = it->key().ToString() + '\0';
  }
  scan.status = it->status();
  if (!scan.status.IsCorruption()) return scan;
  scan.damage = scan.status.ToString();
  Keys keys(db, next, prefix);
  scan.status = keys.Collect();
  if (!scan.status.ok()) return scan;
  // Each bad one once, at the place that its key says or behind whoever has that place.
  std::map<std::string, const RawRecord*> all;
  for (const std::string& key : keys.keys()) all[key] = keys.Raw(key);
  for (const auto& [key, record] : keys.bad()) all[all.contains(key) ? key + '~' : key] = &record;
  for (const auto& [key, raw] : all) {
    std::string value;
    const rocksdb::Status got = db.Get(Uncached(), key, &value);
    const bool bad = raw != nullptr && !IsGood(*raw);
    if (got.IsNotFound() && !bad) continue;
    if (!got.ok() && raw == nullptr) {
      scan.status = got;
      break;
    }
    const bool intact = got.ok() ? CheckOf(key, value) != RecordCheck::kBad : !bad;
    const std::string_view content = got.ok() ? value : raw->value;
    if (!on_record(key, bad && !got.ok() ? content : WithoutCheck(content), intact)) break;
  }
  return scan;
}

rocksdb::Status GetRecord(rocksdb::DB& db, const std::string& key, std::string* value) {
  bool found = false, intact = false;
  const TableScan scan =
      ScanTables(db, key, key.substr(0, 2), [&](std::string_view at, std::string_view content, bool is_intact) {
        if (at != key) return at < key;
        found = true;
        intact = is_intact;
        *value = std::string(content);
        return false;
      });
  if (found)
    return intact ? rocksdb::Status::OK() : rocksdb::Status::Corruption("the record is not what was written", key);
  return scan.status.ok() ? rocksdb::Status::NotFound() : scan.status;
}

}  // namespace athanor

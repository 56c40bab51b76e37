#include "server/storage/rocksdb_store.h"

#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "athanor/storage/v1/records.pb.h"
#include "server/storage/record_codec.h"

namespace athanor {
namespace {

constexpr char kMetaKey[] = "m/meta";
constexpr char kCounterFile[] = "/COMMITS";
// The side file is written after each commit and made durable every so many: it proves that at least so many commits
// were acknowledged.
constexpr uint64_t kCounterSyncEvery = 256;
// With less free space nothing is written: RocksDB survives a full disk under its tables, but not under its log.
constexpr uint64_t kReserve = 8 << 20;

rocksdb::Options StoreOptions() {
  rocksdb::Options options;
  options.paranoid_checks = true;
  // The default mode silently drops everything behind a damaged record; this one opens after a torn tail and refuses
  // damage.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.write_buffer_size = 16 << 20;
  options.max_write_buffer_number = 2;
  options.max_background_jobs = 2;
  options.max_total_wal_size = 32 << 20;
  options.keep_log_file_num = 4;
  options.max_log_file_size = 4 << 20;
  options.max_open_files = 256;
  options.compression = rocksdb::kNoCompression;
  options.avoid_flush_during_shutdown = true;
  return options;
}

absl::Status FromRocks(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", status.ToString());
  const bool no_space = status.IsNoSpace() || text.find("No space left") != std::string::npos ||
                        text.find("Disk quota exceeded") != std::string::npos ||
                        text.find("File too large") != std::string::npos;
  if (no_space) return absl::ResourceExhaustedError(text);
  if (status.IsCorruption()) {
    return absl::DataLossError(
        absl::StrCat(text, ". Restore a backup of the data directory, or salvage with `ldb repair` and review"));
  }
  if (status.IsIOError() && text.find("/LOCK") != std::string::npos) {
    return absl::FailedPreconditionError(absl::StrCat(text, ": another coordinator uses this directory"));
  }
  return absl::InternalError(text);
}

std::string NewClusterId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenDatabase(const std::string& directory, bool create) {
  rocksdb::Options options = StoreOptions();
  options.create_if_missing = create;
  rocksdb::DB* raw = nullptr;
  RETURN_IF_ERROR(FromRocks(rocksdb::DB::Open(options, directory, &raw), absl::StrCat("opening ", directory)));
  return std::unique_ptr<rocksdb::DB>(raw);
}

class RocksDbStore : public MetadataStore {
 public:
  RocksDbStore(std::string directory, std::unique_ptr<rocksdb::DB> db)
      : directory_(std::move(directory)), db_(std::move(db)) {}
  ~RocksDbStore() override {
    if (counter_ < 0) return;
    fsync(counter_);
    close(counter_);
  }

  absl::Status Begin() {
    ASSIGN_OR_RETURN(const bool found, ReadMeta(&meta_));
    if (found) {
      if (meta_.format() > kStoreFormat) {
        return absl::FailedPreconditionError(absl::StrCat(
            directory_, " has format ", meta_.format(), ", written by version ", meta_.written_by(),
            "; this is version ", Version(), " and knows formats up to ", kStoreFormat, ". Start the newer version"));
      }
    } else {
      meta_.set_cluster(NewClusterId());
    }
    RETURN_IF_ERROR(CheckCounter());
    OpenCounter();
    meta_.set_format(kStoreFormat);
    meta_.set_epoch(meta_.epoch() + 1);
    meta_.set_written_by(Version());
    return Commit({});
  }

  absl::StatusOr<core::ClusterState> Load() override {
    core::ClusterState state;
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    // Events are most of the store and not needed: read around them.
    for (const char* prefix : {"c/", "g/", "j/", "r/", "w/"}) {
      std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
      for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
        RETURN_IF_ERROR(DecodeInto(it->key().ToStringView(), it->value().ToStringView(), state));
      }
      RETURN_IF_ERROR(FromRocks(it->status(), absl::StrCat("reading ", directory_)));
    }
    return state;
  }

  absl::Status Commit(const WriteBatch& batch) override {
    RETURN_IF_ERROR(CheckRoom());
    rocksdb::WriteBatch write;
    for (const auto& [key, value] : batch.operations) {
      if (value.has_value()) {
        write.Put(key, *value);
      } else {
        write.Delete(key);
      }
    }
    storage::v1::MetaRecord meta = meta_;
    meta.set_commit(meta.commit() + 1);
    write.Put(kMetaKey, meta.SerializeAsString());
    rocksdb::WriteOptions options;
    options.sync = true;
    rocksdb::Status status = db_->Write(options, &write);
    log_broken_ = status.IsNoSpace() && status.ToString().find(".log") != std::string::npos;
    // A background error of an earlier shortage sticks until Resume(); try once, space may be back.
    if (status.IsNoSpace() && !log_broken_ && db_->Resume().ok()) status = db_->Write(options, &write);
    RETURN_IF_ERROR(FromRocks(status, absl::StrCat("writing ", directory_)));
    meta_ = std::move(meta);
    WriteCounter();
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<core::JobEventEntry>> ReadEvents(const core::JobId& job, int64_t after,
                                                              int32_t limit) override {
    std::vector<core::JobEventEntry> events;
    const std::string prefix = absl::StrCat("e/", job.str(), "/");
    std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions()));
    for (it->Seek(EventKey(job, after + 1));
         it->Valid() && it->key().starts_with(prefix) && static_cast<int32_t>(events.size()) < limit; it->Next()) {
      ASSIGN_OR_RETURN(core::JobEventEntry event, DecodeEvent(it->value().ToStringView()));
      events.push_back(std::move(event));
    }
    RETURN_IF_ERROR(FromRocks(it->status(), absl::StrCat("reading events of ", job.str())));
    return events;
  }

  uint64_t epoch() const override { return meta_.epoch(); }
  std::string cluster() const override { return meta_.cluster(); }

 private:
  absl::Status CheckCounter() const {
    std::ifstream file(directory_ + kCounterFile);
    std::string text;
    uint64_t acknowledged = 0;
    if (!std::getline(file, text) || !absl::SimpleAtoi(text, &acknowledged)) return absl::OkStatus();  // first start
    if (meta_.commit() >= acknowledged) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(directory_, " holds ", meta_.commit(), " commits, but ", acknowledged,
                                            " were acknowledged: its log lost its end. Restore a backup, or remove ",
                                            directory_, kCounterFile, " to accept the loss"));
  }

  absl::StatusOr<bool> ReadMeta(storage::v1::MetaRecord* meta) const {
    std::string value;
    const rocksdb::Status found = db_->Get(rocksdb::ReadOptions(), kMetaKey, &value);
    if (found.IsNotFound()) return false;
    RETURN_IF_ERROR(FromRocks(found, absl::StrCat("reading ", directory_)));
    if (meta->ParseFromString(value)) return true;
    return absl::DataLossError(absl::StrCat("the meta record of ", directory_, " cannot be read"));
  }

  absl::Status CheckRoom() const {
    std::error_code error;
    const std::filesystem::space_info space = std::filesystem::space(directory_, error);
    if (!error && space.available < kReserve) {
      return absl::ResourceExhaustedError(absl::StrCat("no space left for ", directory_, ": ", space.available,
                                                       " bytes free on its disk, ", kReserve, " are needed"));
    }
    if (!log_broken_) return absl::OkStatus();
    // Whoever starts next reads what was acknowledged from the disk.
    return absl::InternalError(absl::StrCat("the log of ", directory_,
                                            " broke off on a full disk; there is room again, it must be opened anew"));
  }

  // An extra proof only: without it the store still works.
  void OpenCounter() { counter_ = open((directory_ + kCounterFile).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600); }

  void WriteCounter() const {
    if (counter_ < 0) return;
    // In place, of one width, so that it needs no space and a reader never sees half of it.
    const std::string text = absl::StrFormat("%020u\n", meta_.commit());
    if (pwrite(counter_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) return;
    if (meta_.commit() % kCounterSyncEvery == 0) fsync(counter_);
  }

  const std::string directory_;
  std::unique_ptr<rocksdb::DB> db_;
  bool log_broken_ = false;
  int counter_ = -1;
  storage::v1::MetaRecord meta_;  // of the last commit
};

absl::Status PrepareDirectory(const std::string& directory) {
  struct stat info;
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create the data directory ", directory, ": ", strerror(errno)));
  }
  if (stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(directory, " is not a directory"));
  }
  if ((info.st_mode & S_IWOTH) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " is writable by everyone; make it private: chmod 700 ", directory));
  }
  return absl::OkStatus();
}

// A store that lost its CURRENT file must not be taken for a new one: RocksDB would start empty over what is left of
// it.
absl::StatusOr<bool> IsFresh(const std::string& directory) {
  if (access((directory + "/CURRENT").c_str(), F_OK) == 0) return false;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    if (name == "COMMITS" || name == "IDENTITY" || name.rfind("MANIFEST-", 0) == 0 || extension == ".sst" ||
        extension == ".log") {
      return absl::DataLossError(absl::StrCat(
          directory, " holds ", name,
          " but no CURRENT file: the store is damaged. Restore a backup, or salvage with `ldb --db=", directory,
          " repair` and review"));
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksDbStore(const std::string& directory) {
  RETURN_IF_ERROR(PrepareDirectory(directory));
  ASSIGN_OR_RETURN(const bool fresh, IsFresh(directory));
  ASSIGN_OR_RETURN(std::unique_ptr<rocksdb::DB> database, OpenDatabase(directory, fresh));
  auto store = std::make_unique<RocksDbStore>(directory, std::move(database));
  RETURN_IF_ERROR(store->Begin());
  return store;
}

}  // namespace athanor

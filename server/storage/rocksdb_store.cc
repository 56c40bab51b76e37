#include "server/storage/rocksdb_store.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
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
// The side file need not be exact: it proves that at least so many commits were acknowledged.
constexpr uint64_t kCounterEvery = 256;

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

class RocksDbStore : public MetadataStore {
 public:
  RocksDbStore(std::string directory, std::unique_ptr<rocksdb::DB> db)
      : directory_(std::move(directory)), db_(std::move(db)) {}

  absl::Status Begin() {
    std::string value;
    const rocksdb::Status found = db_->Get(rocksdb::ReadOptions(), kMetaKey, &value);
    if (found.ok()) {
      if (!meta_.ParseFromString(value))
        return absl::DataLossError(absl::StrCat("the meta record of ", directory_, " cannot be read"));
      if (meta_.format() > kStoreFormat) {
        return absl::FailedPreconditionError(absl::StrCat(
            directory_, " has format ", meta_.format(), ", written by version ", meta_.written_by(),
            "; this is version ", Version(), " and knows formats up to ", kStoreFormat, ". Start the newer version"));
      }
    } else if (found.IsNotFound()) {
      meta_.set_cluster(NewClusterId());
    } else {
      return FromRocks(found, absl::StrCat("reading ", directory_));
    }
    RETURN_IF_ERROR(CheckCounter());
    meta_.set_format(kStoreFormat);
    meta_.set_epoch(meta_.epoch() + 1);
    meta_.set_written_by(Version());
    RETURN_IF_ERROR(Commit({}));
    return WriteCounter();
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
    if (!status.ok() && status.IsNoSpace()) {
      // A background error of an earlier shortage sticks until Resume(); try once, space may be back.
      if (db_->Resume().ok()) status = db_->Write(options, &write);
    }
    RETURN_IF_ERROR(FromRocks(status, absl::StrCat("writing ", directory_)));
    meta_ = std::move(meta);
    if (meta_.commit() % kCounterEvery == 0) return WriteCounter();
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

  absl::Status WriteCounter() const {
    const std::string path = directory_ + kCounterFile;
    const std::string temporary = path + ".tmp";
    std::FILE* file = std::fopen(temporary.c_str(), "w");
    if (file == nullptr) return absl::OkStatus();  // only an extra proof: a full disk must not stop the store
    const bool written = std::fprintf(file, "%llu\n", static_cast<unsigned long long>(meta_.commit())) > 0 &&
                         std::fflush(file) == 0 && fsync(fileno(file)) == 0;
    std::fclose(file);
    if (written) {
      std::rename(temporary.c_str(), path.c_str());
    } else {
      std::remove(temporary.c_str());
    }
    return absl::OkStatus();
  }

  const std::string directory_;
  std::unique_ptr<rocksdb::DB> db_;
  storage::v1::MetaRecord meta_;
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
  rocksdb::Options options = StoreOptions();
  ASSIGN_OR_RETURN(options.create_if_missing, IsFresh(directory));
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status opened = rocksdb::DB::Open(options, directory, &raw);
  RETURN_IF_ERROR(FromRocks(opened, absl::StrCat("opening ", directory)));
  auto store = std::make_unique<RocksDbStore>(directory, std::unique_ptr<rocksdb::DB>(raw));
  RETURN_IF_ERROR(store->Begin());
  return store;
}

}  // namespace athanor

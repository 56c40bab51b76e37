#include "server/storage/rocksdb_store.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <shared_mutex>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "athanor/storage/v1/records.pb.h"
#include "common/service/logging_setup.h"
#include "server/storage/commit_counter.h"
#include "server/storage/record_check.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_status.h"
#include "server/storage/salvage.h"
#include "server/storage/table_scan.h"

namespace athanor {
namespace {

constexpr char kMetaKey[] = "m/meta";
constexpr char kAside[] = "x/";
constexpr char kEvent[] = "e/";
// More are no accident of a record: the store as a whole is not what was written.
constexpr size_t kMostAside = 100;
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
  rocksdb::BlockBasedTableOptions tables;
  tables.block_restart_interval = 1;  // each key is whole: a flipped bit hits one record
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(tables));
  options.disable_auto_compactions = true;  // until all was read: a merge of a damaged table ends all writing
  return options;
}

uint64_t LogBytes(const std::string& directory) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".log") bytes += entry.file_size(error);
  }
  return bytes;
}

absl::Status CheckFree(const std::string& directory, uint64_t needed) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(directory, error);
  if (error || space.available >= needed) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("no space left for ", directory, ": ", space.available,
                                                   " bytes free on its disk, ", needed, " are needed"));
}

// Asked before RocksDB is: on a disk that fills up under it, its checks end the process.
absl::Status CheckRoom(const std::string& directory, bool opening) {
  // To open a store is to write its log out as a table.
  return CheckFree(directory, kReserve + (opening ? LogBytes(directory) : 0));
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

// False when there is none yet.
absl::StatusOr<bool> ReadMeta(rocksdb::DB& db, const std::string& directory, storage::v1::MetaRecord* meta) {
  std::string value;
  // An older version has kept the check of a record that it changed: it counts where RocksDB's own fails only.
  rocksdb::Status found = db.Get(rocksdb::ReadOptions(), kMetaKey, &value);
  if (found.IsCorruption()) found = GetRecord(db, kMetaKey, &value);
  if (found.IsNotFound()) return false;
  RETURN_IF_ERROR(FromRocks(found, absl::StrCat("reading ", directory)));
  if (meta->ParseFromString(std::string(WithoutCheck(value)))) return true;
  return absl::DataLossError(absl::StrCat("the meta record of ", directory, " cannot be read"));
}

absl::Status CheckMeta(const storage::v1::MetaRecord& meta, uint64_t acknowledged, const std::string& directory) {
  if (meta.format() > kStoreFormat) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory, " has format ", meta.format(), ", written by version ", meta.written_by(), "; this is version ",
        Version(), " and knows formats up to ", kStoreFormat, ". Start the newer version"));
  }
  if (acknowledged == 0 && meta.commit() > CommitCounter::kSyncEvery && CommitCounter(directory).Exists()) {
    return absl::DataLossError(
        absl::StrCat(CommitCounter(directory).path(), " is empty, but the store holds ", meta.commit(),
                     " commits: it was cut. Restore a backup, or remove it to go on without this proof"));
  }
  if (meta.commit() >= acknowledged) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(directory, " holds ", meta.commit(), " commits, but ", acknowledged,
                                          " were acknowledged: its log lost its end. Restore a backup, or remove ",
                                          CommitCounter(directory).path(), " to accept the loss"));
}

// Looks before it touches, since to open a store is to rewrite its log: a refused start leaves all as it was.
absl::Status LookAtStore(const std::string& directory) {
  // The counter first: another coordinator may be writing both.
  ASSIGN_OR_RETURN(const uint64_t acknowledged, CommitCounter(directory).Read());
  rocksdb::DB* raw = nullptr;
  if (!rocksdb::DB::OpenForReadOnly(StoreOptions(), directory, &raw).ok()) {
    return absl::OkStatus();  // the opening proper says why
  }
  const std::unique_ptr<rocksdb::DB> db(raw);
  storage::v1::MetaRecord meta;
  RETURN_IF_ERROR(ReadMeta(*db, directory, &meta).status());
  return CheckMeta(meta, acknowledged, directory);
}

class RocksDbStore : public MetadataStore {
 public:
  RocksDbStore(std::string directory, std::unique_ptr<rocksdb::DB> db, Clocks clocks)
      : directory_(std::move(directory)), db_(std::move(db)), clocks_(std::move(clocks)), counter_(directory_) {}

  absl::Status Begin() {
    ASSIGN_OR_RETURN(const bool found, ReadMeta(*db_, directory_, &meta_));
    ASSIGN_OR_RETURN(const uint64_t acknowledged, counter_.Read());
    RETURN_IF_ERROR(CheckMeta(meta_, acknowledged, directory_));
    opened_ = clocks_();
    opened_service_ = opened_.wall;
    if (meta_.has_service_time()) {
      const ClockReading last{absl::FromUnixNanos(meta_.wall_time()), absl::Nanoseconds(meta_.boot_time()),
                              meta_.boot_id()};
      opened_service_ = absl::FromUnixNanos(meta_.service_time()) + Elapsed(last, opened_);
    }
    frame_.wall_ahead = opened_.wall - opened_service_;
    if (!found) meta_.set_cluster(NewClusterId());
    meta_.set_format(kStoreFormat);
    meta_.set_epoch(meta_.epoch() + 1);
    meta_.set_written_by(Version());
    return Commit({});
  }

  absl::StatusOr<core::ClusterState> Load() override {
    core::ClusterState state;
    std::map<std::string, std::string> problems;  // by key
    std::string damage = NotedDamage(directory_);
    if (damage.empty()) RETURN_IF_ERROR(ReadState(&state, &problems, &damage));
    std::map<std::string, std::string> salvaged;
    if (!damage.empty()) {
      ASSIGN_OR_RETURN(salvaged, Salvage(damage));
      state = {};
      problems.clear();
      damage.clear();
      RETURN_IF_ERROR(ReadState(&state, &problems, &damage));
      if (!damage.empty())
        return absl::DataLossError(absl::StrCat("the copy of ", directory_, " is damaged: ", damage));
    }
    for (const std::string& key : Orphans(state)) {
      problems[key] = absl::StrCat("the record '", key, "' belongs to a job that is not stored");
      state.generations.erase(JobOfKey(key));
      state.checkpoints.erase(JobOfKey(key));
    }
    RETURN_IF_ERROR(PutAside(problems));
    problems.merge(salvaged);
    RETURN_IF_ERROR(ListAside(problems));
    RETURN_IF_ERROR(FromRocks(db_->EnableAutoCompaction({db_->DefaultColumnFamily()}), directory_));
    return state;
  }

  absl::Status Commit(const WriteBatch& batch) override {
    RETURN_IF_ERROR(CheckRoom(directory_, /*opening=*/broken_off_));
    if (broken_off_) RETURN_IF_ERROR(Reopen());
    rocksdb::WriteBatch write;
    for (const auto& [key, value] : batch.operations) {
      if (value.has_value()) {
        std::string checked = *value;
        AddCheck(key, checked);
        write.Put(key, checked);
      } else {
        write.Delete(key);
      }
    }
    storage::v1::MetaRecord meta = meta_;
    meta.set_commit(meta.commit() + 1);
    Stamp(meta);
    std::string checked = meta.SerializeAsString();
    AddCheck(kMetaKey, checked);
    write.Put(kMetaKey, checked);
    rocksdb::WriteOptions options;
    options.sync = true;
    const rocksdb::Status status = db_->Write(options, &write);
    broken_off_ = status.IsNoSpace();
    if (status.IsCorruption()) NoteDamage(directory_, status.ToString());  // a merge has met it
    RETURN_IF_ERROR(FromRocks(status, absl::StrCat("writing ", directory_)));
    meta_ = std::move(meta);
    counter_.Write(meta_.commit());
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<core::JobEventEntry>> ReadEvents(const core::JobId& job, int64_t after,
                                                              int32_t limit) override {
    std::vector<core::JobEventEntry> events;
    const std::string prefix = absl::StrCat("e/", job.str(), "/");
    std::shared_lock lock(db_mutex_);
    if (db_ == nullptr) return absl::UnavailableError(absl::StrCat(directory_, " waits for room on its disk"));
    const TableScan scan = ScanTables(*db_, EventKey(job, after + 1), prefix,
                                      [&](std::string_view key, std::string_view value, bool intact) {
                                        if (static_cast<int32_t>(events.size()) >= limit) return false;
                                        events.push_back(ReadEvent(key, intact ? value : std::string_view(), frame_));
                                        return true;
                                      });
    if (!scan.damage.empty()) TellDamage(scan.damage);
    RETURN_IF_ERROR(FromRocks(scan.status, absl::StrCat("reading events of ", job.str())));
    return events;
  }

  uint64_t epoch() const override { return meta_.epoch(); }
  std::string cluster() const override { return meta_.cluster(); }
  TimeFrame frame() const override { return frame_; }
  const std::vector<RecordAside>& aside() const override { return aside_; }

 private:
  // Events are most of the store and not needed: reads around them. Ends at damage.
  absl::Status ReadState(core::ClusterState* state, std::map<std::string, std::string>* problems, std::string* damage) {
    for (const char* prefix : {"c/", "g/", "j/", "r/", "w/"}) {
      const TableScan scan =
          ScanTables(*db_, prefix, prefix, [&](std::string_view key, std::string_view value, bool intact) {
            const absl::Status status =
                intact ? DecodeInto(key, value, *state, frame_)
                       : absl::DataLossError(absl::StrCat("the record '", absl::CHexEscape(std::string(key)),
                                                          "' is not what was written: its checksum differs"));
            if (!status.ok()) (*problems)[std::string(key)] = std::string(status.message());
            return true;
          });
      RETURN_IF_ERROR(FromRocks(scan.status, absl::StrCat("reading ", directory_)));
      *damage = scan.damage;
      if (!damage->empty()) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  void TellDamage(const std::string& damage) {
    if (damage_told_.exchange(true)) return;
    NoteDamage(directory_, damage);
    Log(spdlog::level::critical, "StoreDamaged", {{"directory", directory_}},
        absl::StrCat(damage, ". Records of that block are shown as unreadable; the next start puts them aside"));
  }

  // Copies what is intact and goes on with the copy. The records that were not, by key.
  absl::StatusOr<std::map<std::string, std::string>> Salvage(const std::string& damage) {
    Log(spdlog::level::critical, "StoreDamaged", {{"directory", directory_}},
        absl::StrCat(damage, ". What is intact is copied; the old files are kept in damaged-N"));
    RETURN_IF_ERROR(CheckCopyRoom());
    const auto as_evidence = [this](std::string_view key, std::string_view value, const std::string& problem) {
      const std::string name(key);
      if (key.rfind(kEvent, 0) == 0) return std::make_pair(name, std::string());  // shown as unreadable in its place
      return std::make_pair(absl::StrCat(kAside, name),
                            Evidence(name, std::string(value), problem).SerializeAsString());
    };
    ASSIGN_OR_RETURN(IntactCopy copy, CopyIntact(*db_, StoreOptions(), directory_, as_evidence, kMostAside, damage));
    std::unique_lock lock(db_mutex_);
    db_.reset();
    RETURN_IF_ERROR(TakeCopy(directory_));
    ASSIGN_OR_RETURN(db_, OpenDatabase(directory_, /*create=*/false));
    Log(spdlog::level::warn, "StoreSalvaged", {{"records", absl::StrCat(copy.problems.size())}},
        "the store goes on without the records that were not intact; see docs/metadata-format.md");
    return copy.problems;
  }

  absl::Status CheckCopyRoom() const {
    std::error_code error;
    uint64_t needed = kReserve;
    for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
      if (entry.path().extension() == ".sst" || entry.path().extension() == ".log") needed += entry.file_size(error);
    }
    return CheckFree(directory_, needed);
  }

  storage::v1::AsideRecord Evidence(const std::string& key, std::string value, const std::string& problem) const {
    storage::v1::AsideRecord record;
    record.set_key(absl::CHexEscape(key));
    record.set_value(std::move(value));
    record.set_problem(problem);
    record.set_time(frame_.Stored(opened_.wall));
    record.set_version(Version());
    return record;
  }

  // Moves the records to where nothing reads them as what they claim to be, in one commit.
  absl::Status PutAside(const std::map<std::string, std::string>& problems) {
    if (problems.empty()) return absl::OkStatus();
    if (problems.size() > kMostAside) {
      return absl::DataLossError(absl::StrCat(problems.size(), " records of ", directory_,
                                              " cannot be used, the first: ", problems.begin()->second,
                                              ". Restore a backup of the data directory"));
    }
    WriteBatch batch;
    for (const auto& [key, problem] : problems) {
      std::string value;
      if (const rocksdb::Status status = GetRecord(*db_, key, &value); !status.IsCorruption())
        RETURN_IF_ERROR(FromRocks(status, absl::StrCat("reading ", directory_)));
      batch.operations.push_back(
          {absl::StrCat(kAside, key), Evidence(key, std::move(value), problem).SerializeAsString()});
      batch.operations.push_back({key, std::nullopt});
    }
    return Commit(batch);
  }

  absl::Status ListAside(const std::map<std::string, std::string>& fresh) {
    const TableScan scan = ScanTables(*db_, kAside, kAside, [&](std::string_view key, std::string_view value, bool) {
      const std::string_view old_key = key.substr(sizeof kAside - 1);
      RecordAside& one = aside_.emplace_back();
      one.key = absl::CHexEscape(std::string(old_key));
      one.job = JobOfKey(old_key);
      one.fresh = fresh.contains(std::string(old_key));
      storage::v1::AsideRecord record;
      if (!record.ParseFromArray(value.data(), static_cast<int>(value.size()))) return true;
      one.problem = record.problem();
      one.time = frame_.Shown(record.time());
      return true;
    });
    return FromRocks(scan.status, absl::StrCat("reading ", directory_));
  }

  void Stamp(storage::v1::MetaRecord& meta) const {
    const ClockReading now = clocks_();
    meta.set_service_time(absl::ToUnixNanos(opened_service_ + Elapsed(opened_, now)));
    meta.set_wall_time(absl::ToUnixNanos(now.wall));
    meta.set_boot_time(absl::ToInt64Nanoseconds(now.boot));
    meta.set_boot_id(now.boot_id);
  }

  // RocksDB cannot go on with a log that a full disk cut: reads what was acknowledged from the disk. The batch that
  // broke off may have reached it in full; it is written once more then, which changes nothing.
  absl::Status Reopen() {
    std::unique_lock lock(db_mutex_);
    db_.reset();
    ASSIGN_OR_RETURN(db_, OpenDatabase(directory_, /*create=*/false));
    RETURN_IF_ERROR(FromRocks(db_->EnableAutoCompaction({db_->DefaultColumnFamily()}), directory_));
    storage::v1::MetaRecord found;
    ASSIGN_OR_RETURN(const bool there, ReadMeta(*db_, directory_, &found));
    if (!there || found.cluster() != meta_.cluster() || found.epoch() != meta_.epoch()) {
      return absl::InternalError(absl::StrCat(directory_, " was changed by another process while its disk was full"));
    }
    const uint64_t acknowledged = meta_.commit();
    meta_ = std::move(found);
    broken_off_ = false;
    if (meta_.commit() >= acknowledged) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(directory_, " came back with ", meta_.commit(), " of ", acknowledged,
                                            " acknowledged commits after its disk was full"));
  }

  const std::string directory_;
  std::shared_mutex db_mutex_;       // Reopen() against ReadEvents() of other threads
  std::unique_ptr<rocksdb::DB> db_;  // null while a reopening waits for room
  bool broken_off_ = false;
  std::atomic<bool> damage_told_{false};
  const Clocks clocks_;
  CommitCounter counter_;
  storage::v1::MetaRecord meta_;  // of the last commit
  ClockReading opened_;
  absl::Time opened_service_;  // service time at `opened_`
  TimeFrame frame_;
  std::vector<RecordAside> aside_;
};

absl::Status MakePrivate(const std::string& path, mode_t found, mode_t wanted) {
  if ((found & 077) == 0) return absl::OkStatus();
  if (chmod(path.c_str(), wanted) != 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s has mode %04o: others can reach secrets of jobs in it, and it cannot be made private: %s",
                        path, found, strerror(errno)));
  }
  Log(spdlog::level::warn, "MadePrivate", {{"path", path}},
      absl::StrFormat("mode %04o let others reach secrets of jobs; it is %04o now", found, wanted));
  return absl::OkStatus();
}

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
  // A volume's root may belong to another user: then its files, which are ours, keep the secrets.
  if (info.st_uid != geteuid() && geteuid() != 0) return absl::OkStatus();
  return MakePrivate(directory, info.st_mode & 0777, 0700);
}

// Environments of jobs lie in these files. RocksDB makes them as the umask says, which the program sets; those that an
// earlier run made are mended.
absl::Status MakeFilesPrivate(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (!entry.is_regular_file(error) || entry.is_symlink(error)) continue;
    const auto mode = static_cast<mode_t>(entry.status(error).permissions());
    if (error) continue;  // gone meanwhile
    RETURN_IF_ERROR(MakePrivate(entry.path().string(), mode & 0777, 0600));
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

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksDbStore(const std::string& directory, Clocks clocks) {
  RETURN_IF_ERROR(PrepareDirectory(directory));
  RETURN_IF_ERROR(MakeFilesPrivate(directory));
  RETURN_IF_ERROR(TakeCopy(directory));
  RETURN_IF_ERROR(CheckRoom(directory, /*opening=*/true));
  ASSIGN_OR_RETURN(const bool fresh, IsFresh(directory));
  if (!fresh) RETURN_IF_ERROR(LookAtStore(directory));
  ASSIGN_OR_RETURN(std::unique_ptr<rocksdb::DB> database, OpenDatabase(directory, fresh));
  auto store = std::make_unique<RocksDbStore>(directory, std::move(database), std::move(clocks));
  RETURN_IF_ERROR(store->Begin());
  return store;
}

}  // namespace athanor

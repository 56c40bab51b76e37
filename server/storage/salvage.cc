#include "server/storage/salvage.h"

#include <rocksdb/write_batch.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "server/storage/record_check.h"
#include "server/storage/rocksdb_status.h"
#include "server/storage/table_scan.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;

// The copy's folder has three names in turn: being written; whole, the old files are moved out; being moved in.
constexpr char kWritten[] = "salvage.new", kWhole[] = "salvage.whole", kMovedIn[] = "salvage.moved";
constexpr char kNote[] = "DAMAGED";

bool IsStoreFile(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  return entry.is_regular_file() &&
         (name == "CURRENT" || name == "IDENTITY" || name.rfind("MANIFEST-", 0) == 0 ||
          name.rfind("OPTIONS-", 0) == 0 || entry.path().extension() == ".sst" || entry.path().extension() == ".log");
}

absl::Status Failed(const std::string& what, const std::error_code& error) {
  if (!error) return absl::OkStatus();
  const std::string text = absl::StrCat("salvaging: ", what, ": ", error.message());
  return error == std::errc::no_space_on_device ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
}

absl::Status MoveFiles(const fs::path& from, const fs::path& to, const std::string& last) {
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(from, error)) {
    if (IsStoreFile(entry) && entry.path().filename() != last) files.push_back(entry.path());
  }
  if (fs::exists(from / last)) files.push_back(from / last);
  for (const fs::path& file : files) {
    if (!error) fs::rename(file, to / file.filename(), error);
    RETURN_IF_ERROR(Failed(file.string(), error));
  }
  return SyncDir(to.string());
}

// The first free "damaged-N".
absl::StatusOr<fs::path> EvidenceFolder(const fs::path& directory) {
  std::error_code error;
  for (int number = 1;; ++number) {
    fs::path folder = directory / absl::StrCat("damaged-", number);
    if (fs::exists(folder)) continue;
    fs::create_directory(folder, error);
    RETURN_IF_ERROR(Failed(folder.string(), error));
    return folder;
  }
}

absl::Status Rename(const fs::path& directory, const char* from, const char* to) {
  std::error_code error;
  fs::rename(directory / from, directory / to, error);
  RETURN_IF_ERROR(Failed(from, error));
  return SyncDir(directory.string());
}

// Collects records into batches of a bounded size.
class Writer {
 public:
  explicit Writer(rocksdb::DB& db) : db_(db) {}
  rocksdb::Status Put(std::string_view key, std::string value) {
    AddCheck(key, value);
    batch_.Put(key, value);
    return batch_.GetDataSize() < kBatchBytes ? rocksdb::Status::OK() : Write();
  }
  rocksdb::Status Write() {
    rocksdb::Status status = db_.Write(rocksdb::WriteOptions(), &batch_);
    batch_.Clear();
    return status;
  }

 private:
  static constexpr size_t kBatchBytes = 1 << 20;
  rocksdb::DB& db_;
  rocksdb::WriteBatch batch_;
};

}  // namespace

void NoteDamage(const std::string& directory, const std::string& what) {
  std::ofstream(fs::path(directory) / kNote, std::ios::trunc) << what << "\n";
}

std::string NotedDamage(const std::string& directory) {
  std::string what;
  std::ifstream note(fs::path(directory) / kNote);
  if (!std::getline(note, what)) return note.is_open() ? "noted before" : "";
  return what;
}

absl::StatusOr<IntactCopy> CopyIntact(rocksdb::DB& damaged, const rocksdb::Options& options,
                                      const std::string& directory, const AsEvidence& as_evidence, size_t most,
                                      const std::string& damage) {
  const std::string folder = (fs::path(directory) / kWritten).string();
  std::error_code error;
  fs::remove_all(folder, error);
  rocksdb::Options fresh = options;
  fresh.create_if_missing = fresh.error_if_exists = true;
  rocksdb::DB* raw = nullptr;
  RETURN_IF_ERROR(FromRocks(rocksdb::DB::Open(fresh, folder, &raw), absl::StrCat("opening ", folder)));
  const std::unique_ptr<rocksdb::DB> copy(raw);
  Writer writer(*copy);
  IntactCopy result;
  rocksdb::Status written;
  const auto put_aside = [&](std::string_view key, std::string_view value, const std::string& problem) {
    result.problems[std::string(key)] = problem;
    auto [at, evidence] = as_evidence(key, value, problem);
    if (!at.empty()) written = writer.Put(at, std::move(evidence));
  };
  const OnRecord take = [&](std::string_view key, std::string_view value, bool intact) {
    if (intact) return (written = writer.Put(key, std::string(value))).ok();
    put_aside(key, value,
              absl::StrCat("the record '", absl::CHexEscape(std::string(key)),
                           "' is not what was written: its table is damaged"));
    return written.ok() && result.problems.size() <= most;
  };
  const TableScan scan = ScanTables(damaged, "", "", take);
  RETURN_IF_ERROR(FromRocks(scan.status, absl::StrCat("reading ", directory)));
  if (result.problems.size() > most) {
    return absl::DataLossError(absl::StrCat("more than ", most, " records of ", directory,
                                            " are damaged, the first: ", result.problems.begin()->second,
                                            ". Restore a backup of the data directory"));
  }
  if (result.problems.empty())
    put_aside("damaged table", "", absl::StrCat(damage, "; no record shows it, and one may be missing"));
  if (written.ok()) written = writer.Write();
  if (written.ok()) written = copy->Flush(rocksdb::FlushOptions());
  if (written.ok()) written = copy->SyncWAL();
  RETURN_IF_ERROR(FromRocks(written, absl::StrCat("writing ", folder)));
  RETURN_IF_ERROR(FromRocks(copy->Close(), absl::StrCat("writing ", folder)));
  RETURN_IF_ERROR(Rename(directory, kWritten, kWhole));
  return result;
}

absl::Status TakeCopy(const std::string& directory) {
  const fs::path here(directory);
  std::error_code error;
  if (fs::exists(here / kWhole)) {
    ASSIGN_OR_RETURN(const fs::path evidence, EvidenceFolder(here));
    RETURN_IF_ERROR(MoveFiles(here, evidence, "CURRENT"));
    RETURN_IF_ERROR(Rename(here, kWhole, kMovedIn));
  }
  if (fs::exists(here / kMovedIn)) {
    RETURN_IF_ERROR(MoveFiles(here / kMovedIn, here, "CURRENT"));  // CURRENT makes a store of the files
    fs::remove_all(here / kMovedIn, error);
    RETURN_IF_ERROR(Failed(kMovedIn, error));
    fs::remove(here / kNote, error);
  }
  fs::remove_all(here / kWritten, error);
  return absl::OkStatus();
}

}  // namespace athanor

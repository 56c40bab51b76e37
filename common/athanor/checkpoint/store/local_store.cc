#include "athanor/checkpoint/store/local_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

class FileWriter : public StoreWriter {
 public:
  explicit FileWriter(AtomicFile file) : file_(std::move(file)) {}
  absl::Status Append(const void* data, size_t size) override { return file_.Append(data, size); }
  absl::Status Sync() override { return file_.Sync(); }
  absl::Status Commit() override { return file_.Commit(); }

 private:
  AtomicFile file_;
};

class FileReader : public StoreReader {
 public:
  FileReader(std::string path, int file) : path_(std::move(path)), file_(file) {}
  ~FileReader() override { close(file_); }
  FileReader(const FileReader&) = delete;
  void set_size(int64_t size) { size_ = size; }
  int64_t size() const override { return size_; }
  absl::Status Read(int64_t offset, int64_t size, char* to) const override {
    for (int64_t done = 0; done < size;) {
      const ssize_t got = pread(file_, to + done, static_cast<size_t>(size - done), offset + done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FileError(errno, "cannot read", path_);
      if (got == 0) {
        return absl::OutOfRangeError(
            absl::StrCat(path_, ": ends at offset ", offset + done, ", before ", offset + size));
      }
      done += got;
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const int file_;
  int64_t size_ = 0;
};

std::string FolderOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

}  // namespace

std::shared_ptr<LocalStore> LocalStore::At(std::string root) {
  return std::shared_ptr<LocalStore>(new LocalStore(std::move(root)));
}

std::string LocalStore::Describe(const std::string& name) const {
  return name.empty() ? root_ : absl::StrCat(root_, "/", name);
}

absl::StatusOr<std::vector<std::string>> LocalStore::List(const std::string& folder) const {
  const std::string path = Describe(folder);
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(path, error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::error_code unknown;  // what cannot be looked at is for its reader to judge
    names.push_back(absl::StrCat(entry->path().filename().string(), entry->is_directory(unknown) ? "/" : ""));
  }
  if (error) return FileError(error.value(), "cannot list", path);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<int64_t> LocalStore::Size(const std::string& name) const {
  struct stat info = {};
  const std::string path = Describe(name);
  if (stat(path.c_str(), &info) != 0) return FileError(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": found no plain file"));
  return static_cast<int64_t>(info.st_size);
}

absl::StatusOr<std::unique_ptr<StoreReader>> LocalStore::Open(const std::string& name) const {
  const std::string path = Describe(name);
  struct stat info = {};
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return FileError(errno, "cannot open", path);
  auto reader = std::make_unique<FileReader>(path, file);
  if (fstat(file, &info) != 0) return FileError(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": found no plain file"));
  reader->set_size(info.st_size);
  return reader;
}

absl::Status LocalStore::Put(const std::string& name, std::string_view bytes, PutMode mode) {
  const std::string path = Describe(name);
  RETURN_IF_ERROR(EnsureDir(FolderOf(path)));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Append(bytes.data(), bytes.size()));
  return mode == PutMode::kReplace ? file.Commit() : file.CommitIfAbsent();
}

absl::StatusOr<std::unique_ptr<StoreWriter>> LocalStore::NewWriter(const std::string& name) {
  const std::string path = Describe(name);
  RETURN_IF_ERROR(EnsureDir(FolderOf(path)));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  return std::make_unique<FileWriter>(std::move(file));
}

absl::Status LocalStore::Copy(const std::string& from, const std::string& to) {
  const std::string source = Describe(from), target = Describe(to);
  RETURN_IF_ERROR(EnsureDir(FolderOf(target)));
  std::error_code error;
  std::filesystem::create_hard_link(source, target, error);
  if (!error || error == std::errc::file_exists) return absl::OkStatus();
  return FileError(error.value(), absl::StrCat("cannot link ", source, " to"), target);
}

absl::Status LocalStore::Delete(const std::string& name) {
  const std::string path = Describe(name);
  std::error_code error;
  if (absl::EndsWith(name, "/")) {
    std::filesystem::remove_all(path, error);
  } else {
    std::filesystem::remove(path, error);
  }
  return error ? FileError(error.value(), "cannot remove", path) : absl::OkStatus();
}

}  // namespace athanor

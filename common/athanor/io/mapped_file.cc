#include "athanor/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "athanor/base/file_system.h"

namespace athanor {

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "cannot open", path);
  struct stat info = {};
  void* data = nullptr;
  int failed = fstat(fd, &info) != 0 ? errno : 0;
  if (failed == 0 && !S_ISREG(info.st_mode)) failed = EINVAL;
  if (failed == 0 && info.st_size > 0) {
    data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) failed = errno;
  }
  close(fd);
  if (failed != 0) return FileError(failed, "cannot map", path);
  return MappedFile(static_cast<const char*>(data), info.st_size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), static_cast<size_t>(size_));
}

}  // namespace athanor

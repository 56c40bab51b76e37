#include "worker/agent/log_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/file_system.h"

namespace athanor::agent {
namespace {

constexpr int64_t kChunk = 256 * 1024 - 512;  // room for the message around it

struct Hole {
  int64_t begin = 0, end = 0;
};

// Where the file has no bytes; at its end when it has all. Nobody but EnforceCap() makes one: logs are appended to.
Hole HoleOf(int fd, int64_t size) {
  const int64_t begin = lseek(fd, 0, SEEK_HOLE);
  if (begin < 0 || begin >= size) return {size, size};
  const int64_t end = lseek(fd, begin, SEEK_DATA);
  return {begin, end < 0 ? size : end};
}

}  // namespace

std::string LogFiles::GenerationDir(const RankKey& key) const {
  return absl::StrFormat("%s/jobs/%s/gen-%04d", work_dir_, key.job, key.generation);
}
std::string LogFiles::LogPath(const RankKey& key) const {
  return absl::StrFormat("%s/rank-%05d.log", GenerationDir(key), key.rank);
}
std::string LogFiles::SpecPath(const RankKey& key) const {
  return absl::StrFormat("%s/rank-%05d.spec", GenerationDir(key), key.rank);
}
std::string LogFiles::FailurePath(const RankKey& key) const {
  return absl::StrFormat("%s/rank-%05d.failure.json", GenerationDir(key), key.rank);
}

v1::LogData LogFiles::Read(const v1::ReadLog& request, bool ended) const {
  v1::LogData data;
  data.set_stream(request.stream());
  const RankKey key = KeyOf(request.id());
  const int fd = open(LogPath(key).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT && !ended) return data;  // not written yet
    data.set_error(absl::StrCat("no log: ", strerror(errno)));
    return data;
  }
  struct stat info = {};
  fstat(fd, &info);
  int64_t offset = request.offset() >= 0 ? request.offset() : std::max<int64_t>(0, info.st_size + request.offset());
  int64_t end = info.st_size;
  std::string notice;
  if (const Hole hole = HoleOf(fd, info.st_size); offset < hole.begin) {
    end = std::min(end, hole.begin);
  } else if (offset < hole.end) {
    notice = absl::StrCat("\n[", hole.end - offset, " bytes were dropped: the log is longer than ", limits_.cap,
                          " bytes]\n");
    offset = hole.end;
  }
  std::string bytes(static_cast<size_t>(std::clamp<int64_t>(end - offset, 0, kChunk)), '\0');
  const ssize_t got = bytes.empty() ? 0 : pread(fd, bytes.data(), bytes.size(), offset);
  if (got < 0) data.set_error(absl::StrCat("cannot read the log: ", strerror(errno)));
  close(fd);
  bytes.resize(static_cast<size_t>(std::max<ssize_t>(0, got)));
  data.set_next_offset(offset + static_cast<int64_t>(bytes.size()));
  data.set_data(notice + bytes);
  data.set_end(ended && data.next_offset() >= info.st_size);
  return data;
}

absl::Status LogFiles::EnforceCap(const std::string& path) const {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0 || info.st_blocks * 512 <= limits_.cap) return absl::OkStatus();
  const int64_t until = (info.st_size - limits_.tail) / limits_.block * limits_.block;
  if (until <= limits_.head) return absl::OkStatus();
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "opening", path);
  const int failed =
      fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, limits_.head, until - limits_.head) == 0 ? 0 : errno;
  close(fd);
  if (failed == EOPNOTSUPP)
    return absl::UnimplementedError(absl::StrCat(path, " stays as long as it is: its file system has no holes"));
  return failed == 0 ? absl::OkStatus() : FileError(failed, "cutting", path);
}

}  // namespace athanor::agent

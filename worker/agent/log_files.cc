#include "worker/agent/log_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace athanor::agent {
namespace {

constexpr int64_t kChunk = 64 * 1024 - 512;  // room for the message around it
constexpr int64_t kCap = 64 << 20, kHead = 1 << 20, kTail = 32 << 20;

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
  if (auto dropped = dropped_until_.find(key); dropped != dropped_until_.end()) {
    if (offset >= kHead && offset < dropped->second) {
      notice = absl::StrCat("\n[", dropped->second - offset, " bytes were dropped: the log is longer than ", kCap,
                            " bytes]\n");
      offset = dropped->second;
    } else if (offset < kHead) {
      end = std::min(end, kHead);
    }
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

void LogFiles::EnforceCap(const RankKey& key) {
  struct stat info = {};
  const std::string path = LogPath(key);
  if (stat(path.c_str(), &info) != 0 || info.st_blocks * 512 <= kCap) return;
  const int64_t until = info.st_size - kTail;
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kHead, until - kHead) == 0) dropped_until_[key] = until;
  close(fd);
}

}  // namespace athanor::agent

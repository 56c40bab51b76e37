#include "athanor/runner/record/event_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/write_fence.h"

namespace athanor {
namespace {

constexpr size_t kFlushBytes = 64 << 10;
constexpr uint32_t kMaskDelta = 0xa282ead8u;

uint32_t Masked(const void* data, size_t size) {
  return std::rotr(Crc32c(0, data, size), 15) + kMaskDelta;
}

template <class T>
void AppendFixed(T value, std::string* out) {
  static_assert(std::endian::native == std::endian::little);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// Field keys of the Event, Summary and Summary.Value messages: number << 3 | wire type.
enum : char {
  kEventWallTime = 1 << 3 | 1,
  kEventStep = 2 << 3 | 0,
  kEventFileVersion = 3 << 3 | 2,
  kEventSummary = 5 << 3 | 2,
  kEventSessionLog = 7 << 3 | 2,
  kSessionStatus = 1 << 3 | 0,
  kSummaryValue = 1 << 3 | 2,
  kValueTag = 1 << 3 | 2,
  kValueSimple = 2 << 3 | 5,
};

void AppendBytes(char key, absl::string_view bytes, std::string* out) {
  out->push_back(key);
  AppendVarint(bytes.size(), out);
  out->append(bytes.data(), bytes.size());
}

std::string EventAt(absl::Time when) {
  std::string event(1, kEventWallTime);
  AppendFixed(absl::ToDoubleSeconds(when - absl::UnixEpoch()), &event);
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventWriter>> EventWriter::Create(const std::string& folder) {
  static std::atomic<int> count{0};
  RETURN_IF_ERROR(EnsureDir(folder));
  char host[256] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) std::strcpy(host, "localhost");
  const absl::Time now = absl::Now();
  const std::string path = absl::StrCat(folder, "/events.out.tfevents.", absl::ToUnixSeconds(now), ".", host, ".",
                                        getpid(), ".", count.fetch_add(1));
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(errno, "create", path);
  std::unique_ptr<EventWriter> writer(new EventWriter(path, fd));
  std::string event = EventAt(now);
  AppendBytes(kEventFileVersion, "brain.Event:2", &event);
  RETURN_IF_ERROR(writer->AddRecord(event));
  RETURN_IF_ERROR(writer->Flush());
  return writer;
}

EventWriter::~EventWriter() {
  Flush().IgnoreError();
  close(fd_);
}

absl::Status EventWriter::AddScalar(absl::string_view tag, double value, int64_t step) {
  return AddScalar(tag, value, step, absl::Now());
}

absl::Status EventWriter::AddScalar(absl::string_view tag, double value, int64_t step, absl::Time when) {
  std::string scalar;
  AppendBytes(kValueTag, tag, &scalar);
  scalar.push_back(kValueSimple);
  AppendFixed(static_cast<float>(value), &scalar);
  std::string summary;
  AppendBytes(kSummaryValue, scalar, &summary);
  std::string event = EventAt(when);
  event.push_back(kEventStep);
  AppendVarint(static_cast<uint64_t>(step), &event);
  AppendBytes(kEventSummary, summary, &event);
  return AddRecord(event);
}

absl::Status EventWriter::AddSessionStart(int64_t step) {
  const std::string log = {kSessionStatus, /*START*/ 1};
  std::string event = EventAt(absl::Now());
  event.push_back(kEventStep);
  AppendVarint(static_cast<uint64_t>(step), &event);
  AppendBytes(kEventSessionLog, log, &event);
  return AddRecord(event);
}

absl::Status EventWriter::AddRecord(absl::string_view message) {
  const uint64_t length = message.size();
  AppendFixed(length, &pending_);
  AppendFixed(Masked(&length, sizeof(length)), &pending_);
  pending_.append(message.data(), message.size());
  AppendFixed(Masked(message.data(), message.size()), &pending_);
  return pending_.size() < kFlushBytes ? absl::OkStatus() : Flush();
}

absl::Status EventWriter::Flush() {
  if (const absl::Status fenced = pending_.empty() ? absl::OkStatus() : CheckWriteFence(path_); !fenced.ok()) {
    pending_.clear();
    return fenced;
  }
  size_t at = 0;
  while (at < pending_.size()) {
    const ssize_t written = write(fd_, pending_.data() + at, pending_.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const absl::Status status = FileError(written < 0 ? errno : ENOSPC, "write", path_);
      // What is torn goes: a reader stops at the first record that is not whole.
      if (at > 0 && (ftruncate(fd_, size_) != 0 || lseek(fd_, size_, SEEK_SET) < 0)) return status;
      pending_.clear();
      return status;
    }
    at += static_cast<size_t>(written);
  }
  size_ += static_cast<int64_t>(pending_.size());
  pending_.clear();
  return absl::OkStatus();
}

}  // namespace athanor

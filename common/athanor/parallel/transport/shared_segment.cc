#include "athanor/parallel/transport/shared_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace athanor {
namespace {

absl::Status SystemError(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("shared memory: ", what, ": ", strerror(errno)));
}

// Boot and PID namespace: two processes that agree on both can open each other's /proc entries.
std::string MachineIdentity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::array<char, 64> space{};
  if (readlink("/proc/self/ns/pid", space.data(), space.size() - 1) < 0) space[0] = '?';
  return absl::StrCat(boot, "/", space.data());
}

void* MapShared(int fd, size_t bytes) {
  return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedSegment>> SharedSegment::Create(size_t bytes) {
  const int fd = memfd_create("athanor-exchange", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return SystemError("memfd_create");
  void* memory = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
    memory = MapShared(fd, bytes);
  }
  if (memory == MAP_FAILED) {
    absl::Status failed = SystemError(absl::StrCat("a segment of ", bytes, " bytes"));
    close(fd);
    return failed;
  }
  std::unique_ptr<SharedSegment> segment(new SharedSegment(memory, bytes));
  std::random_device random;
  const uint64_t nonce = (uint64_t{random()} << 32) | random();
  std::memcpy(memory, &nonce, sizeof(nonce));
  segment->memory_fd_ = fd;
  segment->pid_ = getpid();
  segment->address_ = absl::StrCat(MachineIdentity(), " ", getpid(), " ", fd, " ", nonce);
  return segment;
}

absl::StatusOr<std::unique_ptr<SharedSegment>> SharedSegment::Map(const std::string& address, size_t bytes) {
  const std::vector<std::string> parts = absl::StrSplit(address, ' ');
  int64_t pid = 0, fd = 0;
  uint64_t nonce = 0;
  if (parts.size() != 4 || !absl::SimpleAtoi(parts[1], &pid) || !absl::SimpleAtoi(parts[2], &fd) ||
      !absl::SimpleAtoi(parts[3], &nonce)) {
    return absl::UnavailableError("shared memory: the other rank offers none");
  }
  if (parts[0] != MachineIdentity()) return absl::UnavailableError("shared memory: the other rank is elsewhere");
  const int memory_fd = open(absl::StrCat("/proc/", pid, "/fd/", fd).c_str(), O_RDWR | O_CLOEXEC);
  if (memory_fd < 0) return SystemError(absl::StrCat("opening the segment of process ", pid));
  struct stat info{};
  void* memory = MAP_FAILED;
  if (fstat(memory_fd, &info) == 0 && info.st_size == static_cast<off_t>(bytes)) memory = MapShared(memory_fd, bytes);
  close(memory_fd);
  if (memory == MAP_FAILED) return SystemError(absl::StrCat("mapping the segment of process ", pid));
  std::unique_ptr<SharedSegment> segment(new SharedSegment(memory, bytes));
  segment->pid_ = pid;
  segment->address_ = address;
  if (std::memcmp(memory, &nonce, sizeof(nonce)) != 0) {
    return absl::UnavailableError(absl::StrCat("shared memory: process ", pid, " is another one by now"));
  }
  return segment;
}

SharedSegment::~SharedSegment() {
  Seal();
  munmap(data_, bytes_);
}

void SharedSegment::Seal() {
  if (memory_fd_ >= 0) close(memory_fd_);
  memory_fd_ = -1;
}

}  // namespace athanor

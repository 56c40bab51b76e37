#include "athanor/parallel/transport/peer_channel.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr size_t kMostPieces = 16;  // of one call
constexpr size_t kStep = 32 << 10;  // of a copy into or out of a ring

absl::Status Gone(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(errno)));
}

bool NotNow() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

msghdr Message(std::span<const iovec> pieces) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = std::min(pieces.size(), kMostPieces);
  return message;
}

}  // namespace

absl::StatusOr<size_t> SocketChannel::TrySend(std::span<const iovec> pieces) {
  const msghdr message = Message(pieces);
  const ssize_t moved = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (moved >= 0) return static_cast<size_t>(moved);
  if (NotNow()) return 0;
  return Gone("sending");
}

absl::StatusOr<size_t> SocketChannel::TryReceive(std::span<const iovec> pieces) {
  msghdr message = Message(pieces);
  const ssize_t moved = recvmsg(fd_, &message, MSG_DONTWAIT);
  if (moved > 0) return static_cast<size_t>(moved);
  if (moved == 0) return absl::UnavailableError("the connection was closed by the other side");
  if (NotNow()) return 0;
  return Gone("receiving");
}

// Both ends tell each other after every step, so that one copies in while the other copies out.
size_t ByteRing::Write(std::span<const iovec> pieces, Bell& other) {
  const uint64_t begin = written.load(std::memory_order_relaxed);
  size_t room = kBytes - static_cast<size_t>(begin - read.load(std::memory_order_acquire));
  uint64_t at = begin;
  for (const iovec& piece : pieces) {
    const char* from = static_cast<const char*>(piece.iov_base);
    size_t left = std::min(piece.iov_len, room);
    room -= left;
    while (left > 0) {
      const size_t offset = at % kBytes;
      const size_t part = std::min({left, kBytes - offset, kStep});
      std::memcpy(bytes + offset, from, part);
      from += part;
      at += part;
      left -= part;
      written.store(at, std::memory_order_release);
      other.Ring();
    }
    if (room == 0) break;
  }
  return static_cast<size_t>(at - begin);
}

size_t ByteRing::Read(std::span<const iovec> pieces, Bell& other) {
  const uint64_t begin = read.load(std::memory_order_relaxed);
  size_t there = static_cast<size_t>(written.load(std::memory_order_acquire) - begin);
  uint64_t at = begin;
  for (const iovec& piece : pieces) {
    char* to = static_cast<char*>(piece.iov_base);
    size_t left = std::min(piece.iov_len, there);
    there -= left;
    while (left > 0) {
      const size_t offset = at % kBytes;
      const size_t part = std::min({left, kBytes - offset, kStep});
      std::memcpy(to, bytes + offset, part);
      to += part;
      at += part;
      left -= part;
      read.store(at, std::memory_order_release);
      other.Ring();
    }
    if (there == 0) break;
  }
  return static_cast<size_t>(at - begin);
}

void Bell::Ring() {
  rung.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) == 0) return;
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&rung), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Bell::Sleep(uint32_t seen, int64_t nanoseconds) {
  timespec limit{};
  limit.tv_sec = nanoseconds / 1'000'000'000;
  limit.tv_nsec = nanoseconds % 1'000'000'000;
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  if (rung.load(std::memory_order_seq_cst) == seen) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&rung), FUTEX_WAIT, seen, &limit, nullptr, 0);
  }
  sleepers.fetch_sub(1, std::memory_order_seq_cst);
}

absl::StatusOr<size_t> SharedChannel::TrySend(std::span<const iovec> pieces) {
  return outgoing_->Write(pieces, *other_);
}

absl::StatusOr<size_t> SharedChannel::TryReceive(std::span<const iovec> pieces) {
  return incoming_->Read(pieces, *other_);
}

}  // namespace athanor

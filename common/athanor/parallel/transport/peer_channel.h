// A pipe of bytes to another rank, in both directions: over a TCP socket, or over two rings in shared memory when both
// ranks are on one machine. Nothing here blocks: what cannot move now is tried again by the caller (Peers::Idle()
// waits).
//
// Threads: one channel is used by one thread at a time.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace athanor {

class PeerChannel {
 public:
  virtual ~PeerChannel() = default;
  // Bytes moved now, in the order of the pieces; 0 when there is no room or nothing has come. UNAVAILABLE: the other
  // rank is gone.
  virtual absl::StatusOr<size_t> TrySend(std::span<const iovec> pieces) = 0;
  virtual absl::StatusOr<size_t> TryReceive(std::span<const iovec> pieces) = 0;
};

// Does not own the descriptor, which is non-blocking.
class SocketChannel : public PeerChannel {
 public:
  explicit SocketChannel(int fd) : fd_(fd) {}
  absl::StatusOr<size_t> TrySend(std::span<const iovec> pieces) override;
  absl::StatusOr<size_t> TryReceive(std::span<const iovec> pieces) override;

 private:
  const int fd_;
};

// What wakes a rank that sleeps: whoever has moved something that it may wait for rings its bell. In shared memory.
struct Bell {
  alignas(64) std::atomic<uint32_t> rung;
  std::atomic<uint32_t> sleepers;

  void Ring();
  // Returns at once when the bell was rung since `seen` was read from it.
  void Sleep(uint32_t seen, int64_t nanoseconds);
};

// A ring that one rank writes and one rank reads. Lies in shared memory; zeroed memory is an empty ring.
struct ByteRing {
  static constexpr size_t kBytes = 1 << 20;
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> read;
  alignas(64) char bytes[kBytes];

  // Bytes moved; `other` is rung as soon as the first of them are there.
  size_t Write(std::span<const iovec> pieces, Bell& other);
  size_t Read(std::span<const iovec> pieces, Bell& other);
};

// Reads one ring, writes the other, and rings the other rank's bell.
class SharedChannel : public PeerChannel {
 public:
  SharedChannel(ByteRing* incoming, ByteRing* outgoing, Bell* other)
      : incoming_(incoming), outgoing_(outgoing), other_(other) {}
  absl::StatusOr<size_t> TrySend(std::span<const iovec> pieces) override;
  absl::StatusOr<size_t> TryReceive(std::span<const iovec> pieces) override;

 private:
  ByteRing* const incoming_;
  ByteRing* const outgoing_;
  Bell* const other_;
};

}  // namespace athanor

// The other ranks of a group and a pipe to each: shared memory within a machine, one TCP socket between machines. The
// socket is there within a machine too: its end tells that the other process is gone.
//
//   ASSIGN_OR_RETURN(auto peers, Peers::Connect({.rank = r, .world_size = n}, exchange));
//   Exchange messages(*peers, deadline);   // exchange.h moves bytes over them
//
// A listener is open only while the group connects, on `bind_host` alone, and takes nobody who does not know the nonce
// that was told through `exchange`.
//
// Errors are UNAVAILABLE and name the rank. After the first error the group is of no further use.
// Threads: one thread at a time; Wake() and Abort() on any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/parallel/transport/peer_channel.h"
#include "athanor/parallel/transport/shared_segment.h"

namespace athanor {

struct PeersOptions {
  int rank = 0;
  int world_size = 1;
  std::string bind_host = "127.0.0.1";         // this rank's own address
  absl::Duration timeout = absl::Seconds(60);  // of connecting
  bool shared_memory = true;                   // false: sockets within a machine too
};

// Hands this rank's text to the others and returns everybody's, by rank.
using AddressExchange = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& mine)>;

class Peers {
 public:
  // Collective: returns when this rank is connected to all others.
  static absl::StatusOr<std::unique_ptr<Peers>> Connect(const PeersOptions& options, const AddressExchange& exchange);
  ~Peers();
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  int rank() const { return rank_; }
  int world_size() const { return static_cast<int>(links_.size()); }
  PeerChannel& channel(int peer) { return *links_[peer].channel; }
  bool shares_memory(int peer) const { return links_[peer].shared; }

  // How an operation waits: take `bell` before trying to move bytes, then call Idle() when nothing moved.
  struct Patience {
    absl::Time deadline;
    uint32_t bell = 0;
    int64_t spin_until = 0;  // nanoseconds; 0: not idle yet
    int64_t next_probe = 0;
  };
  struct Need {
    int peer;
    bool send;
    bool receive;
  };
  uint32_t bell() const;
  // Spins, then sleeps, until something may have moved. UNAVAILABLE: aborted, a needed rank is gone.
  // DEADLINE_EXCEEDED names the ranks that were waited for.
  absl::Status Idle(Patience& patience, std::span<const Need> needs);

  // Makes an Idle() that sleeps return. Any thread.
  void Wake();
  // Everything in flight or to come fails, here and on the other ranks. Idempotent.
  void Abort();
  bool aborted() const { return aborted_.load(std::memory_order_relaxed); }

 private:
  struct Segment;
  struct Link {
    int fd = -1;
    bool shared = false;
    bool closed = false;  // the other side has closed the socket; what it wrote before may still lie in the ring
    std::unique_ptr<SharedSegment> segment;
    std::unique_ptr<PeerChannel> channel;
  };
  explicit Peers(const PeersOptions& options);
  static size_t SegmentBytes(int world_size);
  Segment* SegmentOf(int peer) const;
  ByteRing* RingFrom(int owner, int writer) const;
  absl::Status ConnectAll(const PeersOptions& options, const AddressExchange& exchange);
  absl::Status ShareMemory(const std::vector<std::string>& segments, absl::Time deadline);
  absl::Status Probe(std::span<const Need> needs);
  absl::Status SleepOnSockets(std::span<const Need> needs, absl::Duration at_most);

  const int rank_;
  std::atomic<bool> aborted_{false};
  int wake_fd_ = -1;         // an eventfd: Wake()
  std::vector<Link> links_;  // by rank; the own one holds the own segment
};

}  // namespace athanor

// Collectives between ranks of one machine through shared memory: no sockets, no copies through the kernel, sums in
// rank order (so the result does not depend on how a message is cut into pieces). Several times faster than Gloo over
// loopback for the few hundred kilobytes that small models exchange.
//
// Each rank owns one anonymous memory file (memfd) that the others map through /proc: nothing is left behind whatever
// dies when. A rank that waits spins shortly, then sleeps on a futex; it sees the death of a peer within
// kProbeInterval, and Abort() at once.
//
// Used by ProcessGroup; not meant for direct use. Threads: collectives on one thread, Abort() on any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace athanor {

class HostMemoryGroup {
 public:
  static constexpr int kMaxRanks = 8;  // every rank reads every other rank's bytes: beyond this a ring is better
  static constexpr absl::Duration kProbeInterval = absl::Milliseconds(20);

  // Makes this rank's segment. UNAVAILABLE when the system refuses the memory.
  static absl::StatusOr<std::unique_ptr<HostMemoryGroup>> Create(int rank, int world_size, absl::Duration timeout);
  ~HostMemoryGroup();
  HostMemoryGroup(const HostMemoryGroup&) = delete;

  // What the other ranks need in order to map this rank's segment; says also which machine it is on.
  const std::string& address() const;
  // Maps the others' segments; `addresses` by rank. UNAVAILABLE when one of them is on another machine or out of reach.
  absl::Status Attach(const std::vector<std::string>& addresses);
  // After every rank has attached: the segments can no longer be opened by anybody else.
  void Seal();

  static bool Supports(c10::ScalarType type);  // float, double, int64
  // data[i] = scale * sum over ranks. UNAVAILABLE (no payload): a peer died, aborted or did not come in time.
  absl::Status AllReduce(void* data, int64_t count, c10::ScalarType type, double scale);
  // The same over several pieces of memory as if they were one, in their order; every rank has the same counts.
  struct Piece {
    void* data;
    int64_t count;
  };
  absl::Status AllReduce(std::span<const Piece> pieces, c10::ScalarType type, double scale);
  absl::Status Broadcast(void* data, int64_t bytes, int root);
  // `out`: world size * bytes, in the order of the ranks; every rank gives as many bytes.
  absl::Status AllGather(const void* data, int64_t bytes, void* out);
  // Element-wise extremes; at most 64 values.
  absl::Status MinMax(const std::vector<int64_t>& values, std::vector<int64_t>* min, std::vector<int64_t>* max);
  absl::Status Barrier(absl::Duration deadline);

  void SetTimeout(absl::Duration timeout) { timeout_ = timeout; }

  void Abort();

 private:
  struct Segment;
  struct Mapping;
  HostMemoryGroup(int rank, int world_size, absl::Duration timeout);
  char* Slot(int rank) const;
  absl::Status NextRound();
  void Publish();
  absl::Status ReduceRound(std::span<const Piece> pieces, c10::ScalarType type, double scale);
  // Until every peer (or only `only`) has published the current sequence number.
  absl::Status Await(absl::Duration timeout, std::optional<int> only = std::nullopt);
  absl::Status AwaitPeer(int peer, absl::Time deadline);
  absl::Status CheckPeer(int peer) const;

  const int rank_;
  const int world_size_;
  absl::Duration timeout_;
  uint32_t sequence_ = 0;
  std::vector<std::unique_ptr<Mapping>> mappings_;  // by rank
};

}  // namespace athanor

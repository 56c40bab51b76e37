// Collectives of a group of ranks on the CPU, over shared memory and sockets (Peers). Synchronous, on the calling
// thread.
//
//   HostCollectives collectives(std::move(peers), absl::Seconds(60));
//   RETURN_IF_ERROR(collectives.AllReduce(data, 1000, torch::kFloat32, Reduction::kSum));
//
// Every call starts with a header to each rank that it exchanges bytes with: which collective, dtype, count, root, and
// the number of the call. Ranks that meet in different calls get FAILED_PRECONDITION, which names both. Results depend
// on the ranks' order alone, never on sizes of messages: they are the same bits on every rank and in every run.
//
// Messages go straight from rank to rank. Small all-reduces send everything to everybody (one trip); large ones reduce
// a slice on each rank and gather the slices. Broadcasts of large messages scatter first.
//
// Errors: UNAVAILABLE or DEADLINE_EXCEEDED with the rank that failed; after the first error every call returns it.
// Threads: calls on one thread at a time; Abort() on any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "athanor/parallel/transport/exchange.h"
#include "athanor/parallel/transport/peers.h"
#include "athanor/parallel/transport/reduction.h"

namespace athanor {

class HostCollectives {
 public:
  HostCollectives(std::unique_ptr<Peers> peers, absl::Duration timeout);

  int rank() const { return peers_->rank(); }
  int world_size() const { return peers_->world_size(); }
  void SetTimeout(absl::Duration timeout) { timeout_ = timeout; }
  absl::Duration timeout() const { return timeout_; }
  void Abort() { peers_->Abort(); }

  // In place.
  absl::Status AllReduce(void* data, int64_t count, c10::ScalarType type, Reduction reduction);
  // `data` of `root` becomes the result; on the others it stays as it was.
  absl::Status Reduce(void* data, int64_t count, c10::ScalarType type, Reduction reduction, int root);
  absl::Status Broadcast(void* data, int64_t count, c10::ScalarType type, int root);
  // A part for each rank, at any address: `counts` by rank, the same on every rank. `out` has counts[rank()] elements
  // and may be this rank's part.
  absl::Status ReduceScatter(std::span<const void* const> parts, std::span<const int64_t> counts, void* out,
                             c10::ScalarType type, Reduction reduction);
  // `mine` has counts[rank()] elements and may be this rank's place among `parts`.
  absl::Status AllGather(const void* mine, std::span<void* const> parts, std::span<const int64_t> counts,
                         c10::ScalarType type);
  // Sends sent[r] of sent_counts[r] elements to rank r, and receives likewise.
  absl::Status AllToAll(std::span<const void* const> sent, std::span<const int64_t> sent_counts,
                        std::span<void* const> received, std::span<const int64_t> received_counts,
                        c10::ScalarType type);
  // Only the root reads `parts`; all have one count.
  absl::Status Gather(const void* mine, std::span<void* const> parts, int64_t count, c10::ScalarType type, int root);
  absl::Status Scatter(std::span<const void* const> parts, void* mine, int64_t count, c10::ScalarType type, int root);
  // Returns when every rank has called it. `name` must be alike.
  absl::Status Barrier();

 private:
  enum class Call : uint8_t {
    kAllReduce,
    kReduce,
    kBroadcast,
    kReduceScatter,
    kAllGather,
    kAllToAll,
    kGather,
    kScatter,
    kBarrier
  };
  // What a rank says of its call to another one. `count`: elements that it contributes for the receiver.
  struct Header {
    uint32_t magic = 0;
    Call call = Call::kBarrier;
    int8_t type = 0;
    Reduction reduction = Reduction::kSum;
    uint8_t unused = 0;
    int32_t root = -1;
    uint32_t number = 0;  // of the call; wraps
    int64_t count = 0;
    bool operator==(const Header&) const = default;
  };
  static std::string Describe(const Header& header);
  Header Make(Call call, c10::ScalarType type, int root = -1, Reduction reduction = Reduction::kSum) const;
  // Runs one call: counts it, gives it a fresh exchange, and keeps its error.
  absl::Status Run(absl::FunctionRef<absl::Status(Exchange&)> body);
  void SendHeader(Exchange& exchange, int peer, Header header, int64_t count);
  void ExpectHeader(Exchange& exchange, int peer, Header header, int64_t count);

  // Receives `count` elements from every other rank in blocks and reduces them with `mine` into `out`.
  absl::Status ReduceArriving(Exchange& exchange, const char* mine, char* out, int64_t count, c10::ScalarType type,
                              Reduction reduction);
  absl::Status AllReduceDirect(Exchange& exchange, char* data, int64_t count, const Header& header);
  absl::Status AllReduceSliced(Exchange& exchange, char* data, int64_t count, const Header& header);
  absl::Status BroadcastSliced(Exchange& exchange, char* data, int64_t count, const Header& header);
  template <typename Body>
  void ForOthers(Body&& body) const;

  std::unique_ptr<Peers> peers_;
  absl::Duration timeout_;
  uint32_t number_ = 0;
  absl::Status failed_;
  std::vector<char> blocks_;             // what has come of each rank
  std::vector<char> copy_;               // of a small message
  std::vector<Header> sent_, received_;  // by rank, of the call under way
};

}  // namespace athanor

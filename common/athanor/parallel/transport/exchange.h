// The traffic of one operation: bytes to and from several ranks at once, in both directions, on the calling thread.
//
//   Exchange exchange(peers, absl::Now() + absl::Seconds(60));
//   for (int peer : others) exchange.Send(peer, mine, bytes);
//   for (int peer : others) exchange.Receive(peer, theirs[peer], bytes);
//   RETURN_IF_ERROR(exchange.FinishReceives());   // everything asked for has come; sends went on meanwhile
//   RETURN_IF_ERROR(exchange.Finish());
//
// Bytes of one pair of ranks keep their order. Memory given here stays as it is until Finish() has returned.
// Errors are those of Peers, with the rank in front; an exchange that failed is over.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "athanor/parallel/transport/peers.h"

namespace athanor {

class Exchange {
 public:
  // Looks at a piece as soon as it is complete, before anything behind it is read any further.
  using Check = std::function<absl::Status()>;

  Exchange(Peers& peers, absl::Time deadline);

  void Send(int peer, const void* data, size_t bytes);
  void Receive(int peer, void* data, size_t bytes);
  // For a header: `check` decides whether what follows may be read.
  void ReceiveChecked(int peer, void* data, size_t bytes, Check check);

  absl::Status FinishReceives() { return Run(Until::kReceived); }
  absl::Status FinishReceivesFrom(int peer) { return Run(Until::kReceivedFrom, peer); }
  absl::Status Finish() { return Run(Until::kDone); }

 private:
  struct Flow {
    std::vector<iovec> pieces;
    size_t next = 0;
    bool empty() const { return next == pieces.size(); }
    void Add(void* data, size_t bytes);
    void Advance(size_t bytes);
  };
  struct Traffic {
    Flow out, in;
    size_t checked_piece = 0;  // index in `in` after which `check` is called
    Check check;
  };
  enum class Until { kReceived, kReceivedFrom, kDone };
  absl::Status Run(Until until, int from = -1);
  absl::StatusOr<bool> Pump(int peer);

  Peers& peers_;
  Peers::Patience patience_;
  std::vector<Traffic> traffic_;  // by rank
  std::vector<Peers::Need> needs_;
};

}  // namespace athanor

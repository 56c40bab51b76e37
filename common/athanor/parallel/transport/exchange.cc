#include "athanor/parallel/transport/exchange.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {

Exchange::Exchange(Peers& peers, absl::Time deadline)
    : peers_(peers), traffic_(static_cast<size_t>(peers.world_size())) {
  patience_.deadline = deadline;
}

void Exchange::Flow::Add(void* data, size_t bytes) {
  if (bytes == 0) return;
  if (empty()) {
    pieces.clear();
    next = 0;
  }
  pieces.push_back({data, bytes});
}

void Exchange::Flow::Advance(size_t bytes) {
  while (bytes > 0) {
    iovec& piece = pieces[next];
    const size_t part = std::min(bytes, piece.iov_len);
    piece.iov_base = static_cast<char*>(piece.iov_base) + part;
    piece.iov_len -= part;
    bytes -= part;
    if (piece.iov_len == 0) ++next;
  }
}

void Exchange::Send(int peer, const void* data, size_t bytes) {
  traffic_[peer].out.Add(const_cast<void*>(data), bytes);
}

void Exchange::Receive(int peer, void* data, size_t bytes) {
  traffic_[peer].in.Add(data, bytes);
}

void Exchange::ReceiveChecked(int peer, void* data, size_t bytes, Check check) {
  Traffic& traffic = traffic_[peer];
  traffic.in.Add(data, bytes);
  traffic.checked_piece = traffic.in.pieces.size();
  traffic.check = std::move(check);
}

absl::StatusOr<bool> Exchange::Pump(int peer) {
  Traffic& traffic = traffic_[peer];
  PeerChannel& channel = peers_.channel(peer);
  bool moved = false;
  if (!traffic.out.empty()) {
    ASSIGN_OR_RETURN(const size_t sent, channel.TrySend(std::span(traffic.out.pieces).subspan(traffic.out.next)));
    traffic.out.Advance(sent);
    moved = sent > 0;
  }
  if (!traffic.in.empty()) {
    // A ring hands over what lies in it in one go; what follows an unchecked header is read only once it has passed.
    const size_t end = traffic.check ? traffic.checked_piece : traffic.in.pieces.size();
    ASSIGN_OR_RETURN(const size_t received,
                     channel.TryReceive(std::span(traffic.in.pieces).subspan(traffic.in.next, end - traffic.in.next)));
    traffic.in.Advance(received);
    moved = moved || received > 0;
    if (traffic.check && traffic.in.next >= traffic.checked_piece) {
      RETURN_IF_ERROR(std::exchange(traffic.check, nullptr)());
      return true;
    }
  }
  return moved;
}

absl::Status Exchange::Run(Until until, int from) {
  while (true) {
    // Before anything moves: the others must not take an aborted rank's bytes for a contribution.
    if (peers_.aborted()) return absl::UnavailableError("the group was aborted");
    patience_.bell = peers_.bell();
    bool moved = false;
    bool waiting = false;
    needs_.clear();
    for (int peer = 0; peer < peers_.world_size(); ++peer) {
      Traffic& traffic = traffic_[peer];
      if (traffic.out.empty() && traffic.in.empty()) continue;
      absl::StatusOr<bool> pumped = Pump(peer);
      if (!pumped.ok()) return Annotate(pumped.status(), absl::StrCat("rank ", peer));
      moved = moved || *pumped;
      const Peers::Need need{peer, !traffic.out.empty(), !traffic.in.empty()};
      const bool counts = until != Until::kReceivedFrom || peer == from;
      waiting = waiting || (need.receive && counts) || (until == Until::kDone && need.send);
      if (need.send || need.receive) needs_.push_back(need);
    }
    if (!waiting) return absl::OkStatus();
    if (moved) {
      patience_.spin_until = 0;
    } else {
      RETURN_IF_ERROR(peers_.Idle(patience_, needs_));
    }
  }
}

}  // namespace athanor

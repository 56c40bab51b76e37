#include "athanor/parallel/transport/peers.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/transport/mesh_listener.h"

namespace athanor {
namespace {

constexpr int64_t kSpinNanoseconds = 50'000;
constexpr int64_t kProbeNanoseconds = 20'000'000;                // how soon the death of a rank of this machine is seen
constexpr absl::Duration kMixedSleep = absl::Microseconds(200);  // when sockets and memory are both waited for

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace

// What a rank shares with those of its machine: its bell, and one ring for each rank that writes to it.
struct Peers::Segment {
  alignas(64) std::atomic<uint64_t> nonce;  // SharedSegment::kReserved
  alignas(64) Bell bell;
  std::atomic<uint32_t> aborted;
  alignas(4096) ByteRing rings[1];  // world size
};

size_t Peers::SegmentBytes(int world_size) {
  return sizeof(Segment) + (static_cast<size_t>(world_size) - 1) * sizeof(ByteRing);
}

Peers::Segment* Peers::SegmentOf(int peer) const {
  return static_cast<Segment*>(links_[peer].segment->data());
}

ByteRing* Peers::RingFrom(int owner, int writer) const {
  return &SegmentOf(owner)->rings[writer];
}

Peers::Peers(const PeersOptions& options) : rank_(options.rank), links_(static_cast<size_t>(options.world_size)) {}

Peers::~Peers() {
  for (const Link& link : links_) {
    if (link.fd >= 0) close(link.fd);
  }
  if (wake_fd_ >= 0) close(wake_fd_);
}

absl::StatusOr<std::unique_ptr<Peers>> Peers::Connect(const PeersOptions& options, const AddressExchange& exchange) {
  std::unique_ptr<Peers> peers(new Peers(options));
  peers->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (peers->wake_fd_ < 0) return absl::UnavailableError("connecting the ranks: no descriptor is left (eventfd)");
  RETURN_IF_ERROR(Annotate(peers->ConnectAll(options, exchange), "connecting the ranks"));
  return peers;
}

absl::Status Peers::ConnectAll(const PeersOptions& options, const AddressExchange& exchange) {
  const absl::Time deadline = absl::Now() + options.timeout;
  ASSIGN_OR_RETURN(const std::unique_ptr<MeshListener> listener, MeshListener::Open(options.bind_host));
  if (options.shared_memory) {
    // Without it this rank is reached over sockets.
    auto segment = SharedSegment::Create(SegmentBytes(options.world_size));
    if (segment.ok()) links_[rank_].segment = *std::move(segment);
  }
  const std::string own_memory = links_[rank_].segment != nullptr ? links_[rank_].segment->address() : "none";
  ASSIGN_OR_RETURN(const std::vector<std::string> told, exchange(absl::StrCat(listener->address(), "|", own_memory)));
  if (told.size() != links_.size()) {
    return absl::UnavailableError(absl::StrCat(told.size(), " addresses for ", links_.size(), " ranks"));
  }
  std::vector<std::string> addresses, segments;
  for (const std::string& text : told) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('|', 1));
    addresses.push_back(parts.first);
    segments.push_back(parts.second);
  }
  ASSIGN_OR_RETURN(const std::vector<int> sockets, listener->Connect(rank_, addresses, deadline));
  for (size_t peer = 0; peer < sockets.size(); ++peer) links_[peer].fd = sockets[peer];
  return ShareMemory(segments, deadline);
}

// Two ranks share memory when each could map the other's; both learn it over their socket.
absl::Status Peers::ShareMemory(const std::vector<std::string>& segments, absl::Time deadline) {
  const bool offered = links_[rank_].segment != nullptr;
  for (int peer = 0; peer < world_size(); ++peer) {
    if (peer == rank_) continue;
    Link& link = links_[peer];
    char mapped = 'n';
    if (offered) {
      auto segment = SharedSegment::Map(segments[peer], SegmentBytes(world_size()));
      if (segment.ok()) {
        link.segment = *std::move(segment);
        mapped = 'y';
      }
    }
    RETURN_IF_ERROR(Annotate(SendAll(link.fd, &mapped, 1, deadline), absl::StrCat("rank ", peer)));
  }
  for (int peer = 0; peer < world_size(); ++peer) {
    if (peer == rank_) continue;
    Link& link = links_[peer];
    char theirs = 'n';
    RETURN_IF_ERROR(Annotate(ReceiveAll(link.fd, &theirs, 1, deadline), absl::StrCat("rank ", peer)));
    link.shared = theirs == 'y' && link.segment != nullptr;
    if (link.shared) {
      link.channel =
          std::make_unique<SharedChannel>(RingFrom(rank_, peer), RingFrom(peer, rank_), &SegmentOf(peer)->bell);
    } else {
      link.segment.reset();
      link.channel = std::make_unique<SocketChannel>(link.fd);
    }
  }
  if (offered) links_[rank_].segment->Seal();
  return absl::OkStatus();
}

uint32_t Peers::bell() const {
  if (links_[rank_].segment == nullptr) return 0;
  return SegmentOf(rank_)->bell.rung.load(std::memory_order_seq_cst);
}

absl::Status Peers::Idle(Patience& patience, std::span<const Need> needs) {
  if (aborted()) return absl::UnavailableError("the group was aborted");
  const int64_t now = absl::GetCurrentTimeNanos();
  if (patience.spin_until == 0) {
    patience.spin_until = now + kSpinNanoseconds;
    patience.next_probe = now + kProbeNanoseconds;
  }
  if (now < patience.spin_until) {
    for (int i = 0; i < 32; ++i) Pause();
    return absl::OkStatus();
  }
  if (now >= patience.next_probe) {
    patience.next_probe = now + kProbeNanoseconds;
    RETURN_IF_ERROR(Probe(needs));
  }
  const absl::Time time = absl::FromUnixNanos(now);
  if (time >= patience.deadline) {
    std::vector<int> ranks;
    for (const Need& need : needs) ranks.push_back(need.peer);
    return absl::DeadlineExceededError(absl::StrCat("rank ", absl::StrJoin(ranks, ", "), " did not come in time"));
  }
  const auto shared = [this](const Need& need) { return links_[need.peer].shared; };
  const absl::Duration left = std::min(patience.deadline - time, absl::Nanoseconds(kProbeNanoseconds));
  if (std::ranges::all_of(needs, shared)) {
    SegmentOf(rank_)->bell.Sleep(patience.bell, absl::ToInt64Nanoseconds(left));
    return absl::OkStatus();
  }
  return SleepOnSockets(needs, std::ranges::any_of(needs, shared) ? kMixedSleep : left);
}

// The socket to a rank of this machine carries no bytes; its end says that the process is gone.
absl::Status Peers::Probe(std::span<const Need> needs) {
  for (const Need& need : needs) {
    Link& link = links_[need.peer];
    if (!link.shared) continue;  // the socket's own errors tell
    if (link.closed) return absl::UnavailableError(absl::StrCat("rank ", need.peer, " is gone"));
    if (SegmentOf(need.peer)->aborted.load(std::memory_order_relaxed) != 0) {
      return absl::UnavailableError(absl::StrCat("the group was aborted by rank ", need.peer));
    }
    pollfd control{link.fd, POLLRDHUP, 0};
    // Only at the next probe is it an error: a rank may write its last bytes and exit in one breath.
    if (poll(&control, 1, 0) > 0) link.closed = true;
  }
  return absl::OkStatus();
}

absl::Status Peers::SleepOnSockets(std::span<const Need> needs, absl::Duration at_most) {
  std::vector<pollfd> wanted = {{wake_fd_, POLLIN, 0}};
  for (const Need& need : needs) {
    const Link& link = links_[need.peer];
    short events = POLLRDHUP;
    if (!link.shared) events = static_cast<short>((need.send ? POLLOUT : 0) | (need.receive ? POLLIN : 0));
    if (!link.shared || !link.closed) wanted.push_back({link.fd, events, 0});
  }
  const timespec limit = absl::ToTimespec(std::max(at_most, absl::Microseconds(1)));
  ppoll(wanted.data(), wanted.size(), &limit, nullptr);
  uint64_t calls = 0;
  if (wanted[0].revents != 0) [[maybe_unused]]
    const ssize_t heard = read(wake_fd_, &calls, sizeof(calls));
  return absl::OkStatus();
}

void Peers::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t told = write(wake_fd_, &one, sizeof(one));
  if (links_[rank_].segment != nullptr) SegmentOf(rank_)->bell.Ring();
}

void Peers::Abort() {
  if (aborted_.exchange(true)) return;
  if (links_[rank_].segment != nullptr) SegmentOf(rank_)->aborted.store(1, std::memory_order_seq_cst);
  Wake();
  for (const Link& link : links_) {
    if (link.shared) static_cast<Segment*>(link.segment->data())->bell.Ring();
    if (link.fd >= 0) shutdown(link.fd, SHUT_RDWR);
  }
}

}  // namespace athanor

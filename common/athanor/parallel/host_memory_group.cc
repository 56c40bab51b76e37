#include "athanor/parallel/host_memory_group.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/transport/shared_segment.h"

namespace athanor {
namespace {

constexpr int64_t kSlotBytes = 1 << 20;
constexpr int kSlots = 2;  // a rank may fill one while others still read the one before
constexpr absl::Duration kSpin = absl::Microseconds(100);

absl::Status SystemError(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("host memory: ", what, ": ", strerror(errno)));
}

int64_t Futex(std::atomic<uint32_t>* word, int operation, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation, value, timeout, nullptr, 0);
}

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

template <typename T>
void SumInRankOrder(T* out, const std::vector<const char*>& slots, int64_t count, double scale) {
  const T* first = reinterpret_cast<const T*>(slots[0]);
  const T* second = reinterpret_cast<const T*>(slots[1]);
  const bool last = slots.size() == 2;
  const T factor = static_cast<T>(scale);
  if (last && factor != T(1)) {
    for (int64_t i = 0; i < count; ++i) out[i] = (first[i] + second[i]) * factor;
    return;
  }
  for (int64_t i = 0; i < count; ++i) out[i] = first[i] + second[i];
  for (size_t r = 2; r < slots.size(); ++r) {
    const T* next = reinterpret_cast<const T*>(slots[r]);
    for (int64_t i = 0; i < count; ++i) out[i] += next[i];
  }
  if (factor != T(1)) {
    for (int64_t i = 0; i < count; ++i) out[i] *= factor;
  }
}

}  // namespace

struct HostMemoryGroup::Segment {
  uint64_t nonce;  // SharedSegment::kReserved
  alignas(64) std::atomic<uint32_t> published;
  std::atomic<uint32_t> sleepers;
  std::atomic<uint32_t> aborted;
  alignas(4096) char slots[kSlots][kSlotBytes];
};

struct HostMemoryGroup::Mapping {
  std::unique_ptr<SharedSegment> memory;
  Segment* segment = nullptr;
  int process_fd = -1;  // readable once the process is dead
  void Hold(std::unique_ptr<SharedSegment> shared) {
    memory = std::move(shared);
    segment = static_cast<Segment*>(memory->data());
  }
  ~Mapping() {
    if (process_fd >= 0) close(process_fd);
  }
};

HostMemoryGroup::HostMemoryGroup(int rank, int world_size, absl::Duration timeout)
    : rank_(rank), world_size_(world_size), timeout_(timeout) {
  for (int i = 0; i < world_size; ++i) mappings_.push_back(std::make_unique<Mapping>());
}

HostMemoryGroup::~HostMemoryGroup() = default;

absl::StatusOr<std::unique_ptr<HostMemoryGroup>> HostMemoryGroup::Create(int rank, int world_size,
                                                                         absl::Duration timeout) {
  if (world_size < 2 || world_size > kMaxRanks) {
    return absl::UnavailableError(absl::StrCat("host memory: ", world_size, " ranks, serves 2 .. ", kMaxRanks));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<SharedSegment> memory, SharedSegment::Create(sizeof(Segment)));
  std::unique_ptr<HostMemoryGroup> group(new HostMemoryGroup(rank, world_size, timeout));
  group->mappings_[rank]->Hold(std::move(memory));
  return group;
}

const std::string& HostMemoryGroup::address() const {
  return mappings_[rank_]->memory->address();
}

absl::Status HostMemoryGroup::Attach(const std::vector<std::string>& addresses) {
  for (int peer = 0; peer < world_size_; ++peer) {
    if (peer == rank_) continue;
    absl::StatusOr<std::unique_ptr<SharedSegment>> memory = SharedSegment::Map(addresses[peer], sizeof(Segment));
    if (!memory.ok()) return Annotate(memory.status(), absl::StrCat("rank ", peer));
    Mapping& mapping = *mappings_[peer];
    mapping.process_fd = static_cast<int>(syscall(SYS_pidfd_open, (*memory)->pid(), 0));
    if (mapping.process_fd < 0) return SystemError(absl::StrCat("pidfd_open of rank ", peer));
    mapping.Hold(*std::move(memory));
  }
  return absl::OkStatus();
}

void HostMemoryGroup::Seal() {
  if (mappings_[rank_]->memory != nullptr) mappings_[rank_]->memory->Seal();
}

char* HostMemoryGroup::Slot(int rank) const {
  return mappings_[rank]->segment->slots[sequence_ % kSlots];
}

absl::Status HostMemoryGroup::NextRound() {
  // Before anything is published: the others must not take an aborted rank's word for a contribution.
  if (mappings_[rank_]->segment->aborted.load(std::memory_order_relaxed) != 0) {
    return absl::UnavailableError("host memory: the group was aborted");
  }
  ++sequence_;
  return absl::OkStatus();
}

void HostMemoryGroup::Publish() {
  Segment* own = mappings_[rank_]->segment;
  own->published.store(sequence_, std::memory_order_seq_cst);
  if (own->sleepers.load(std::memory_order_seq_cst) > 0) Futex(&own->published, FUTEX_WAKE, INT32_MAX, nullptr);
}

absl::Status HostMemoryGroup::CheckPeer(int peer) const {
  for (const auto& mapping : mappings_) {
    if (mapping->segment->aborted.load(std::memory_order_relaxed) != 0) {
      return absl::UnavailableError("host memory: the group was aborted");
    }
  }
  pollfd poll_fd{mappings_[peer]->process_fd, POLLIN, 0};
  if (poll(&poll_fd, 1, 0) > 0) return absl::UnavailableError(absl::StrCat("host memory: rank ", peer, " died"));
  return absl::OkStatus();
}

absl::Status HostMemoryGroup::AwaitPeer(int peer, absl::Time deadline) {
  Segment* segment = mappings_[peer]->segment;
  const auto behind = [&](uint32_t seen) { return static_cast<int32_t>(seen - sequence_) < 0; };
  const int64_t spin_until = absl::GetCurrentTimeNanos() + absl::ToInt64Nanoseconds(kSpin);
  for (int round = 1; behind(segment->published.load(std::memory_order_acquire)); ++round) {
    Pause();
    if (round % 64 == 0 && absl::GetCurrentTimeNanos() > spin_until) break;
  }
  while (true) {
    const uint32_t seen = segment->published.load(std::memory_order_acquire);
    if (!behind(seen)) return absl::OkStatus();
    if (absl::Status alive = CheckPeer(peer); !alive.ok()) {
      // A peer may publish its last word and exit in one breath.
      return behind(segment->published.load(std::memory_order_acquire)) ? alive : absl::OkStatus();
    }
    if (absl::Now() >= deadline) {
      return absl::UnavailableError(absl::StrCat("host memory: rank ", peer, " did not come in time"));
    }
    const timespec probe = absl::ToTimespec(kProbeInterval);
    segment->sleepers.fetch_add(1, std::memory_order_seq_cst);
    if (segment->published.load(std::memory_order_seq_cst) == seen)
      Futex(&segment->published, FUTEX_WAIT, seen, &probe);
    segment->sleepers.fetch_sub(1, std::memory_order_seq_cst);
  }
}

absl::Status HostMemoryGroup::Await(absl::Duration timeout, std::optional<int> only) {
  const absl::Time deadline = absl::Now() + timeout;
  if (only.has_value()) return *only == rank_ ? absl::OkStatus() : AwaitPeer(*only, deadline);
  for (int peer = 0; peer < world_size_; ++peer) {
    if (peer != rank_) RETURN_IF_ERROR(AwaitPeer(peer, deadline));
  }
  return absl::OkStatus();
}

bool HostMemoryGroup::Supports(c10::ScalarType type) {
  return type == c10::kFloat || type == c10::kDouble || type == c10::kLong;
}

absl::Status HostMemoryGroup::AllReduce(void* data, int64_t count, c10::ScalarType type, double scale) {
  const Piece whole{data, count};
  return AllReduce(std::span(&whole, 1), type, scale);
}

absl::Status HostMemoryGroup::AllReduce(std::span<const Piece> pieces, c10::ScalarType type, double scale) {
  if (!Supports(type)) return absl::InvalidArgumentError(absl::StrCat("host memory: cannot sum ", c10::toString(type)));
  const int64_t element = static_cast<int64_t>(c10::elementSize(type));
  const int64_t room = kSlotBytes / element;
  std::vector<Piece> round;
  int64_t filled = 0;
  for (const Piece& piece : pieces) {
    for (int64_t begin = 0; begin < piece.count;) {
      const int64_t part = std::min(room - filled, piece.count - begin);
      round.push_back({static_cast<char*>(piece.data) + begin * element, part});
      begin += part;
      filled += part;
      if (filled < room) continue;
      RETURN_IF_ERROR(ReduceRound(round, type, scale));
      round.clear();
      filled = 0;
    }
  }
  return round.empty() ? absl::OkStatus() : ReduceRound(round, type, scale);
}

// What fits into a slot.
absl::Status HostMemoryGroup::ReduceRound(std::span<const Piece> pieces, c10::ScalarType type, double scale) {
  const size_t element = c10::elementSize(type);
  RETURN_IF_ERROR(NextRound());
  char* to = Slot(rank_);
  for (const Piece& piece : pieces) {
    const size_t bytes = static_cast<size_t>(piece.count) * element;
    std::memcpy(to, piece.data, bytes);
    to += bytes;
  }
  Publish();
  RETURN_IF_ERROR(Await(timeout_));
  std::vector<const char*> slots(world_size_);
  for (int r = 0; r < world_size_; ++r) slots[r] = Slot(r);
  for (const Piece& piece : pieces) {
    if (type == c10::kFloat) {
      SumInRankOrder(static_cast<float*>(piece.data), slots, piece.count, scale);
    } else if (type == c10::kDouble) {
      SumInRankOrder(static_cast<double*>(piece.data), slots, piece.count, scale);
    } else {
      SumInRankOrder(static_cast<int64_t*>(piece.data), slots, piece.count, scale);
    }
    for (const char*& slot : slots) slot += static_cast<size_t>(piece.count) * element;
  }
  return absl::OkStatus();
}

absl::Status HostMemoryGroup::Broadcast(void* data, int64_t bytes, int root) {
  for (int64_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const size_t part = static_cast<size_t>(std::min(kSlotBytes, bytes - begin));
    char* out = static_cast<char*>(data) + begin;
    RETURN_IF_ERROR(NextRound());
    if (rank_ == root) std::memcpy(Slot(rank_), out, part);
    Publish();
    // The root waits too: it must not run ahead by more than one slot.
    RETURN_IF_ERROR(Await(timeout_));
    if (rank_ != root) std::memcpy(out, Slot(root), part);
  }
  return absl::OkStatus();
}

absl::Status HostMemoryGroup::AllGather(const void* data, int64_t bytes, void* out) {
  for (int64_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const size_t part = static_cast<size_t>(std::min(kSlotBytes, bytes - begin));
    RETURN_IF_ERROR(NextRound());
    std::memcpy(Slot(rank_), static_cast<const char*>(data) + begin, part);
    Publish();
    RETURN_IF_ERROR(Await(timeout_));
    for (int r = 0; r < world_size_; ++r) std::memcpy(static_cast<char*>(out) + r * bytes + begin, Slot(r), part);
  }
  return absl::OkStatus();
}

absl::Status HostMemoryGroup::MinMax(const std::vector<int64_t>& values, std::vector<int64_t>* min,
                                     std::vector<int64_t>* max) {
  RETURN_IF_ERROR(NextRound());
  std::memcpy(Slot(rank_), values.data(), values.size() * sizeof(int64_t));
  Publish();
  RETURN_IF_ERROR(Await(timeout_));
  *min = values;
  *max = values;
  for (int r = 0; r < world_size_; ++r) {
    const int64_t* theirs = reinterpret_cast<const int64_t*>(Slot(r));
    for (size_t i = 0; i < values.size(); ++i) {
      (*min)[i] = std::min((*min)[i], theirs[i]);
      (*max)[i] = std::max((*max)[i], theirs[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status HostMemoryGroup::Barrier(absl::Duration deadline) {
  RETURN_IF_ERROR(NextRound());
  Publish();
  return Await(deadline);
}

void HostMemoryGroup::Abort() {
  Segment* own = mappings_[rank_]->segment;
  own->aborted.store(1, std::memory_order_seq_cst);
  for (const auto& mapping : mappings_) {
    if (mapping->segment != nullptr) Futex(&mapping->segment->published, FUTEX_WAKE, INT32_MAX, nullptr);
  }
}

}  // namespace athanor

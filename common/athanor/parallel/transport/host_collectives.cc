#include "athanor/parallel/transport/host_collectives.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr uint32_t kMagic = 0x43485441;     // "ATHC"
constexpr int64_t kBlock = 256 << 10;       // bytes of each rank that are reduced at once, while they are in the cache
constexpr int64_t kDirectBytes = 32 << 10;  // an all-reduce up to here takes one trip
constexpr int64_t kScatterBytes = 256 << 10;  // a broadcast from here on is scattered first

int64_t SliceBegin(int64_t count, int slice, int slices) {
  return count / slices * slice + std::min<int64_t>(slice, count % slices);
}

size_t Bytes(int64_t count, c10::ScalarType type) {
  return static_cast<size_t>(count) * c10::elementSize(type);
}

}  // namespace

HostCollectives::HostCollectives(std::unique_ptr<Peers> peers, absl::Duration timeout)
    : peers_(std::move(peers)),
      timeout_(timeout),
      sent_(static_cast<size_t>(peers_->world_size())),
      received_(static_cast<size_t>(peers_->world_size())) {}

std::string HostCollectives::Describe(const Header& header) {
  static constexpr const char* kNames[] = {"all_reduce", "reduce", "broadcast", "reduce_scatter", "all_gather",
                                           "all_to_all", "gather", "scatter",   "barrier"};
  if (header.magic != kMagic || header.call > Call::kBarrier) return "something that is no call";
  std::string text = absl::StrCat(kNames[static_cast<size_t>(header.call)], " (call ", header.number);
  if (header.call == Call::kBarrier) return absl::StrCat(text, ")");
  absl::StrAppend(&text, ", ", header.count, " x ", c10::toString(static_cast<c10::ScalarType>(header.type)));
  const bool reduces =
      header.call == Call::kAllReduce || header.call == Call::kReduce || header.call == Call::kReduceScatter;
  if (reduces) absl::StrAppend(&text, ", ", ToString(header.reduction));
  if (header.root >= 0) absl::StrAppend(&text, ", root ", header.root);
  return absl::StrCat(text, ")");
}

HostCollectives::Header HostCollectives::Make(Call call, c10::ScalarType type, int root, Reduction reduction) const {
  Header header;
  header.magic = kMagic;
  header.call = call;
  header.type = static_cast<int8_t>(type);
  header.reduction = reduction;
  header.root = root;
  return header;
}

template <typename Body>
void HostCollectives::ForOthers(Body&& body) const {
  // Each rank begins with the one after it, so that not all of them write to rank 0 first.
  for (int step = 1; step < world_size(); ++step) body((rank() + step) % world_size());
}

absl::Status HostCollectives::Run(absl::FunctionRef<absl::Status(Exchange&)> body) {
  if (!failed_.ok()) return failed_;
  ++number_;
  if (world_size() == 1) return absl::OkStatus();
  Exchange exchange(*peers_, absl::Now() + timeout_);
  absl::Status status = body(exchange);
  if (status.ok()) status = exchange.Finish();
  if (status.ok()) return status;
  failed_ = status;
  peers_->Abort();  // the others must not wait for what this rank no longer sends
  return status;
}

void HostCollectives::SendHeader(Exchange& exchange, int peer, Header header, int64_t count) {
  header.number = number_;
  header.count = count;
  sent_[peer] = header;
  exchange.Send(peer, &sent_[peer], sizeof(Header));
}

void HostCollectives::ExpectHeader(Exchange& exchange, int peer, Header header, int64_t count) {
  header.number = number_;
  header.count = count;
  exchange.ReceiveChecked(peer, &received_[peer], sizeof(Header), [this, peer, header] {
    if (received_[peer] == header) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("it is in ", Describe(received_[peer]), ", rank ", rank(), " in ", Describe(header)));
  });
}

absl::Status HostCollectives::ReduceArriving(Exchange& exchange, const char* mine, char* out, int64_t count,
                                             c10::ScalarType type, Reduction reduction) {
  const int64_t element = static_cast<int64_t>(c10::elementSize(type));
  const int64_t block = std::max<int64_t>(1, std::min(kBlock / element, count));
  blocks_.resize(static_cast<size_t>(block * element * world_size()));
  std::vector<const void*> sources(static_cast<size_t>(world_size()));
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t part = std::min(block, count - begin);
    ForOthers([&](int peer) {
      char* place = blocks_.data() + peer * block * element;
      exchange.Receive(peer, place, Bytes(part, type));
      sources[peer] = place;
    });
    sources[rank()] = mine + begin * element;
    RETURN_IF_ERROR(exchange.FinishReceives());
    athanor::Reduce(reduction, type, out + begin * element, sources, static_cast<size_t>(part));
  }
  return exchange.FinishReceives();
}

absl::Status HostCollectives::AllReduceDirect(Exchange& exchange, char* data, int64_t count, const Header& header) {
  const auto type = static_cast<c10::ScalarType>(header.type);
  // The result is written over the data while slow ranks still wait for it.
  copy_.assign(data, data + Bytes(count, type));
  ForOthers([&](int peer) {
    SendHeader(exchange, peer, header, count);
    exchange.Send(peer, copy_.data(), copy_.size());
    ExpectHeader(exchange, peer, header, count);
  });
  return ReduceArriving(exchange, copy_.data(), data, count, type, header.reduction);
}

absl::Status HostCollectives::AllReduceSliced(Exchange& exchange, char* data, int64_t count, const Header& header) {
  const auto type = static_cast<c10::ScalarType>(header.type);
  const auto place = [&](int slice) { return data + Bytes(SliceBegin(count, slice, world_size()), type); };
  const auto size = [&](int slice) { return static_cast<size_t>(place(slice + 1) - place(slice)); };
  ForOthers([&](int peer) {
    SendHeader(exchange, peer, header, count);
    exchange.Send(peer, place(peer), size(peer));
    ExpectHeader(exchange, peer, header, count);
  });
  char* own = place(rank());
  const int64_t elements = static_cast<int64_t>(size(rank()) / c10::elementSize(type));
  RETURN_IF_ERROR(ReduceArriving(exchange, own, own, elements, type, header.reduction));
  // A rank sends its reduced slice only when it has this rank's part of it: what comes overwrites nothing unsent.
  ForOthers([&](int peer) {
    exchange.Send(peer, own, size(rank()));
    exchange.Receive(peer, place(peer), size(peer));
  });
  return exchange.FinishReceives();
}

absl::Status HostCollectives::AllReduce(void* data, int64_t count, c10::ScalarType type, Reduction reduction) {
  RETURN_IF_ERROR(CheckReduction(reduction, type));
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kAllReduce, type, -1, reduction);
    char* bytes = static_cast<char*>(data);
    const bool small = static_cast<int64_t>(Bytes(count, type)) <= kDirectBytes;
    return small ? AllReduceDirect(exchange, bytes, count, header) : AllReduceSliced(exchange, bytes, count, header);
  });
}

absl::Status HostCollectives::Reduce(void* data, int64_t count, c10::ScalarType type, Reduction reduction, int root) {
  RETURN_IF_ERROR(CheckReduction(reduction, type));
  return Run([&](Exchange& exchange) -> absl::Status {
    const Header header = Make(Call::kReduce, type, root, reduction);
    char* bytes = static_cast<char*>(data);
    if (rank() != root) {
      SendHeader(exchange, root, header, count);
      exchange.Send(root, data, Bytes(count, type));
      return absl::OkStatus();
    }
    ForOthers([&](int peer) { ExpectHeader(exchange, peer, header, count); });
    return ReduceArriving(exchange, bytes, bytes, count, type, reduction);
  });
}

// The root sends each other rank one slice, and the ranks hand their slices on among themselves, block by block.
absl::Status HostCollectives::BroadcastSliced(Exchange& exchange, char* data, int64_t count, const Header& header) {
  const auto type = static_cast<c10::ScalarType>(header.type);
  const int slices = world_size() - 1;
  const auto slice_of = [&](int peer) { return peer < header.root ? peer : peer - 1; };
  const auto place = [&](int slice) { return data + Bytes(SliceBegin(count, slice, slices), type); };
  const auto size = [&](int slice) { return static_cast<size_t>(place(slice + 1) - place(slice)); };
  if (rank() == header.root) {
    ForOthers([&](int peer) {
      SendHeader(exchange, peer, header, count);
      exchange.Send(peer, place(slice_of(peer)), size(slice_of(peer)));
    });
    return absl::OkStatus();
  }
  const int own = slice_of(rank());
  ExpectHeader(exchange, header.root, header, count);
  ForOthers([&](int peer) {
    if (peer == header.root) return;
    SendHeader(exchange, peer, header, count);
    ExpectHeader(exchange, peer, header, count);
    exchange.Receive(peer, place(slice_of(peer)), size(slice_of(peer)));
  });
  for (size_t begin = 0; begin < size(own); begin += kBlock) {
    const size_t part = std::min<size_t>(kBlock, size(own) - begin);
    exchange.Receive(header.root, place(own) + begin, part);
    RETURN_IF_ERROR(exchange.FinishReceivesFrom(header.root));
    ForOthers([&](int peer) {
      if (peer != header.root) exchange.Send(peer, place(own) + begin, part);
    });
  }
  return exchange.FinishReceives();
}

absl::Status HostCollectives::Broadcast(void* data, int64_t count, c10::ScalarType type, int root) {
  return Run([&](Exchange& exchange) -> absl::Status {
    const Header header = Make(Call::kBroadcast, type, root);
    char* bytes = static_cast<char*>(data);
    if (world_size() > 2 && static_cast<int64_t>(Bytes(count, type)) >= kScatterBytes) {
      return BroadcastSliced(exchange, bytes, count, header);
    }
    if (rank() == root) {
      ForOthers([&](int peer) {
        SendHeader(exchange, peer, header, count);
        exchange.Send(peer, bytes, Bytes(count, type));
      });
    } else {
      ExpectHeader(exchange, root, header, count);
      exchange.Receive(root, bytes, Bytes(count, type));
    }
    return exchange.Finish();
  });
}

absl::Status HostCollectives::ReduceScatter(std::span<const void* const> parts, std::span<const int64_t> counts,
                                            void* out, c10::ScalarType type, Reduction reduction) {
  RETURN_IF_ERROR(CheckReduction(reduction, type));
  if (world_size() == 1 && out != parts[0]) std::memcpy(out, parts[0], Bytes(counts[0], type));
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kReduceScatter, type, -1, reduction);
    ForOthers([&](int peer) {
      SendHeader(exchange, peer, header, counts[peer]);
      exchange.Send(peer, parts[peer], Bytes(counts[peer], type));
      ExpectHeader(exchange, peer, header, counts[rank()]);
    });
    return ReduceArriving(exchange, static_cast<const char*>(parts[rank()]), static_cast<char*>(out), counts[rank()],
                          type, reduction);
  });
}

absl::Status HostCollectives::AllGather(const void* mine, std::span<void* const> parts, std::span<const int64_t> counts,
                                        c10::ScalarType type) {
  if (parts[rank()] != mine) std::memmove(parts[rank()], mine, Bytes(counts[rank()], type));
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kAllGather, type);
    ForOthers([&](int peer) {
      SendHeader(exchange, peer, header, counts[rank()]);
      exchange.Send(peer, mine, Bytes(counts[rank()], type));
      ExpectHeader(exchange, peer, header, counts[peer]);
      exchange.Receive(peer, parts[peer], Bytes(counts[peer], type));
    });
    return exchange.Finish();
  });
}

absl::Status HostCollectives::AllToAll(std::span<const void* const> sent, std::span<const int64_t> sent_counts,
                                       std::span<void* const> received, std::span<const int64_t> received_counts,
                                       c10::ScalarType type) {
  if (sent_counts[rank()] != received_counts[rank()]) {
    return absl::InvalidArgumentError(absl::StrCat("all_to_all: rank ", rank(), " sends itself ", sent_counts[rank()],
                                                   " elements and expects ", received_counts[rank()]));
  }
  if (sent_counts[rank()] > 0) std::memmove(received[rank()], sent[rank()], Bytes(sent_counts[rank()], type));
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kAllToAll, type);
    ForOthers([&](int peer) {
      SendHeader(exchange, peer, header, sent_counts[peer]);
      exchange.Send(peer, sent[peer], Bytes(sent_counts[peer], type));
      ExpectHeader(exchange, peer, header, received_counts[peer]);
      exchange.Receive(peer, received[peer], Bytes(received_counts[peer], type));
    });
    return exchange.Finish();
  });
}

absl::Status HostCollectives::Gather(const void* mine, std::span<void* const> parts, int64_t count,
                                     c10::ScalarType type, int root) {
  if (rank() == root && parts[root] != mine) std::memmove(parts[root], mine, Bytes(count, type));
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kGather, type, root);
    if (rank() == root) {
      ForOthers([&](int peer) {
        ExpectHeader(exchange, peer, header, count);
        exchange.Receive(peer, parts[peer], Bytes(count, type));
      });
    } else {
      SendHeader(exchange, root, header, count);
      exchange.Send(root, mine, Bytes(count, type));
    }
    return exchange.Finish();
  });
}

absl::Status HostCollectives::Scatter(std::span<const void* const> parts, void* mine, int64_t count,
                                      c10::ScalarType type, int root) {
  if (rank() == root && parts[root] != mine) std::memmove(mine, parts[root], Bytes(count, type));
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kScatter, type, root);
    if (rank() == root) {
      ForOthers([&](int peer) {
        SendHeader(exchange, peer, header, count);
        exchange.Send(peer, parts[peer], Bytes(count, type));
      });
    } else {
      ExpectHeader(exchange, root, header, count);
      exchange.Receive(root, mine, Bytes(count, type));
    }
    return exchange.Finish();
  });
}

absl::Status HostCollectives::Barrier() {
  return Run([&](Exchange& exchange) {
    const Header header = Make(Call::kBarrier, c10::kByte);
    ForOthers([&](int peer) {
      SendHeader(exchange, peer, header, 0);
      ExpectHeader(exchange, peer, header, 0);
    });
    return exchange.Finish();
  });
}

}  // namespace athanor

#include "athanor/parallel/process_group.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/checked_backend.h"
#include "athanor/parallel/host_memory_group.h"
#include "athanor/parallel/transport/host_backend.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

std::chrono::milliseconds ToMillis(absl::Duration duration) {
  return std::chrono::milliseconds(std::max<int64_t>(1, absl::ToInt64Milliseconds(duration)));
}

// Whatever a collective reports, the cause is another rank (or the network to it).
absl::Status PeerLost(const absl::Status& status, absl::string_view what) {
  if (status.ok()) return status;
  if (FailureKindOf(status) == FailureKind::kOutOfMemory) return status;
  absl::StatusCode code = absl::IsDeadlineExceeded(status) ? status.code() : absl::StatusCode::kUnavailable;
  return WithFailureKind(absl::Status(code, absl::StrCat(what, ": ", status.message())), FailureKind::kPeerLost);
}

// Gloo and TCPStore write into sockets whose other end may be gone. That must be an error of the collective, not the
// end of the process (Python, for which they were written, ignores the signal as well). A handler of the program's own
// is left alone.
void IgnoreBrokenPipes() {
  struct sigaction present{};
  if (sigaction(SIGPIPE, nullptr, &present) == 0 && (present.sa_flags & SA_SIGINFO) == 0 &&
      present.sa_handler == SIG_DFL) {
    signal(SIGPIPE, SIG_IGN);
  }
}

absl::Status CheckBackend(const std::string& backend, const torch::Device& device) {
  const std::vector<std::string> allowed =
      device.is_cuda() ? std::vector<std::string>{"auto", "nccl"} : std::vector<std::string>{"auto", "host", "gloo"};
  if (std::ranges::find(allowed, backend) != allowed.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("comm.backend: found \"", backend, "\"; allowed on ", device.str(),
                                                 ": ", absl::StrJoin(allowed, ", ")));
}

// Through the store that all ranks share.
AddressExchange OverStore(c10d::Store& store, int rank, int world_size) {
  return [&store, rank, world_size, round = 0](const std::string& mine) mutable {
    return RunTorch("exchanging addresses", [&] {
      const std::string prefix = absl::StrCat("address/", round++, "/");
      store.set(absl::StrCat(prefix, rank), std::vector<uint8_t>(mine.begin(), mine.end()));
      std::vector<std::string> all;
      for (int peer = 0; peer < world_size; ++peer) all.push_back(store.get_to_str(absl::StrCat(prefix, peer)));
      return all;
    });
  };
}

PeersOptions PeersOf(const ProcessGroupOptions& options) {
  return {.rank = options.rank,
          .world_size = options.world_size,
          .bind_host = options.bind_host,
          .timeout = options.timeout,
          .shared_memory = options.shared_memory};
}

template <typename T>
T ValueOrThrow(absl::StatusOr<T> value) {
  TORCH_CHECK_WITH(DistBackendError, value.ok(), std::string(value.status().message()));
  return *std::move(value);
}

absl::StatusOr<int> ListenOn(const std::string& host, int* port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(*port).c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(absl::StrCat("store: cannot resolve '", host, "': ", gai_strerror(error)));
  }
  absl::Cleanup free_addresses = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::UnavailableError(absl::StrCat("store: socket: ", strerror(errno)));
  const int on = 1;  // a port of one's own choice may still be in the last states of an earlier run
  if (*port != 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    const std::string reason = strerror(errno);
    close(fd);
    return absl::UnavailableError(absl::StrCat("store: cannot listen on '", host, "': ", reason));
  }
  *port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return fd;
}

}  // namespace

struct HostStore::Impl {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

HostStore::HostStore(std::string host, int port, std::unique_ptr<Impl> impl)
    : host_(std::move(host)), port_(port), impl_(std::move(impl)) {}
HostStore::~HostStore() = default;

absl::StatusOr<std::unique_ptr<HostStore>> HostStore::Create(const Options& options) {
  IgnoreBrokenPipes();
  int port = options.port;
  ASSIGN_OR_RETURN(const int fd, ListenOn(options.host, &port));
  auto impl = std::make_unique<Impl>();
  // The server takes the descriptor over, so the port cannot be lost between choosing and listening.
  absl::Status made = RunTorch("hosting the store", [&] {
    c10d::TCPStoreOptions server;
    server.port = static_cast<uint16_t>(port);
    server.isServer = true;
    server.waitWorkers = false;
    server.masterListenFd = fd;
    server.timeout = ToMillis(options.timeout);
    impl->store = c10::make_intrusive<c10d::TCPStore>(options.host, server);
  });
  RETURN_IF_ERROR(made);
  return std::unique_ptr<HostStore>(new HostStore(options.host, port, std::move(impl)));
}

struct ProcessGroup::Impl {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::atomic<bool> aborted{false};
  ProcessGroupOptions options;  // for subgroups
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<ProcessGroup>> subgroups;  // by their ranks

  std::vector<ProcessGroup*> Subgroups() {
    const std::lock_guard lock(mutex);
    std::vector<ProcessGroup*> all;
    for (const auto& [ranks, group_of_ranks] : subgroups) all.push_back(group_of_ranks.get());
    return all;
  }

  absl::Status Wait(absl::string_view what, const std::function<c10::intrusive_ptr<c10d::Work>()>& start) {
    if (aborted.load(std::memory_order_relaxed)) {
      return WithFailureKind(absl::UnavailableError(absl::StrCat(what, ": the process group was aborted")),
                             FailureKind::kPeerLost);
    }
    absl::Status mismatch;
    const absl::Status status = RunTorch(what, [&] {
      try {
        start()->wait();
      } catch (const c10::ValueError& error) {
        mismatch = absl::FailedPreconditionError(absl::StrCat(what, ": ", error.what_without_backtrace()));
      }
    });
    if (!mismatch.ok()) return WithFailureKind(mismatch, FailureKind::kUserCode);
    return PeerLost(status, what);
  }
};

ProcessGroup::ProcessGroup() = default;

ProcessGroup::~ProcessGroup() {
  // An aborted Gloo context may still wait for its peers in its destructor's threads; errors there concern nobody any
  // more.
  if (impl_ == nullptr) return;
  impl_->subgroups.clear();
  RunTorch("closing the process group", [&] { impl_->group.reset(); }).IgnoreError();
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Create(const ProcessGroupOptions& options) {
  if (options.world_size < 1 || options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("process group: rank ", options.rank, " of ", options.world_size,
                                                   ", must be in 0 .. world_size - 1"));
  }
  RETURN_IF_ERROR(CheckBackend(options.backend, options.device));
#ifndef USE_C10D_NCCL
  if (options.device.is_cuda()) {
    return absl::InvalidArgumentError("process group: this build has no NCCL; configure with -DATHANOR_CUDA=ON");
  }
#endif
  return Joined(options, nullptr);
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Joined(const ProcessGroupOptions& options,
                                                                   const ProcessGroup* parent) {
  std::unique_ptr<ProcessGroup> group(new ProcessGroup());
  RETURN_IF_ERROR(group->Join(options, parent));
  if (options.world_size == 1) return group;
  if (options.shared_memory && options.device.is_cpu() && !options.check) {
    RETURN_IF_ERROR(group->JoinHostMemory());
  } else {
    // A rank that is connected may still be one that others are connecting to: nobody leaves before all are in.
    RETURN_IF_ERROR(group->Barrier(options.timeout));
  }
  return group;
}

absl::StatusOr<ProcessGroup*> ProcessGroup::Subgroup(const std::vector<int>& ranks) {
  const auto own = std::ranges::find(ranks, rank_);
  const bool ascending = std::ranges::adjacent_find(ranks, std::greater_equal<>()) == ranks.end();
  if (own == ranks.end() || !ascending || ranks.front() < 0 || ranks.back() >= world_size_) {
    return absl::InvalidArgumentError(absl::StrCat("subgroup of rank ", rank_, ": found ranks ",
                                                   absl::StrJoin(ranks, ", "), "; allowed: ascending ranks from 0 to ",
                                                   world_size_ - 1, ", this one among them"));
  }
  if (static_cast<int>(ranks.size()) == world_size_) return this;
  const std::string name = absl::StrJoin(ranks, ",");
  {
    const std::lock_guard lock(impl_->mutex);
    if (const auto found = impl_->subgroups.find(name); found != impl_->subgroups.end()) return found->second.get();
  }
  ProcessGroupOptions options = impl_->options;
  options.rank = static_cast<int>(own - ranks.begin());
  options.world_size = static_cast<int>(ranks.size());
  options.prefix = absl::StrCat("subgroup/", name);
  options.timeout = timeout_;
  ASSIGN_OR_RETURN(std::unique_ptr<ProcessGroup> group, Joined(options, this));
  if (impl_->aborted.load()) group->Abort();
  const std::lock_guard lock(impl_->mutex);
  return impl_->subgroups.emplace(name, std::move(group)).first->second.get();
}

absl::Status ProcessGroup::Join(const ProcessGroupOptions& options, const ProcessGroup* parent) {
  IgnoreBrokenPipes();
  rank_ = options.rank;
  world_size_ = options.world_size;
  device_ = options.device;
  timeout_ = options.timeout;
  impl_ = std::make_unique<Impl>();
  impl_->options = options;
  return PeerLost(
      RunTorch("joining the process group",
               [&] {
                 c10::intrusive_ptr<c10d::Store> store;
                 if (parent != nullptr) {
                   store = parent->impl_->store;
                 } else if (options.hosted_store != nullptr) {
                   store = options.hosted_store->impl_->store;
                 } else {
                   c10d::TCPStoreOptions client;
                   client.port = static_cast<uint16_t>(options.store_port);
                   client.waitWorkers = false;
                   client.timeout = ToMillis(options.timeout);
                   store = c10::make_intrusive<c10d::TCPStore>(options.store_host, client);
                 }
                 impl_->store = c10::make_intrusive<c10d::PrefixStore>(options.prefix, store);
                 impl_->group = c10::make_intrusive<c10d::ProcessGroup>(impl_->store, rank_, world_size_);
                 impl_->group->setGroupName(options.prefix);
                 SetBackend(options);
               }),
      absl::StrCat("rank ", rank_, " of ", world_size_, ", store ", options.store_host, ":", options.store_port));
}

void ProcessGroup::SetBackend(const ProcessGroupOptions& options) {
  using Type = c10d::ProcessGroup::BackendType;
  const c10::DeviceType device = device_.type();
  const AddressExchange exchange = OverStore(*impl_->store, rank_, world_size_);
  c10::intrusive_ptr<c10d::Backend> backend;
  Type type = Type::CUSTOM;
  if (device_.is_cpu() && options.backend != "gloo") {
    backend = ValueOrThrow(HostBackend::Create(PeersOf(options), exchange));
  } else if (device_.is_cpu()) {
    auto gloo = c10d::ProcessGroupGloo::Options::create(ToMillis(options.timeout));
    gloo->threads = 1;
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.bind_host));
    backend = c10::make_intrusive<c10d::ProcessGroupGloo>(impl_->store, rank_, world_size_, gloo);
    type = Type::GLOO;
  } else {
#ifdef USE_C10D_NCCL
    auto nccl = c10d::ProcessGroupNCCL::Options::create();
    nccl->timeout = ToMillis(options.timeout);
    backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(impl_->store, rank_, world_size_, nccl);
    type = Type::NCCL;
#endif
  }
  if (options.check && world_size_ > 1) {
    std::unique_ptr<Peers> peers = ValueOrThrow(Peers::Connect(PeersOf(options), exchange));
    backend = c10::make_intrusive<CheckedBackend>(std::move(backend), std::move(peers), options.timeout);
    type = Type::CUSTOM;
  }
  impl_->group->setBackend(device, type, backend);
  impl_->group->setDefaultBackend(type);
}

absl::Status ProcessGroup::JoinHostMemory() {
  absl::StatusOr<std::unique_ptr<HostMemoryGroup>> memory = HostMemoryGroup::Create(rank_, world_size_, timeout_);
  std::vector<std::string> addresses(world_size_);
  RETURN_IF_ERROR(PeerLost(RunTorch("exchanging memory addresses",
                                    [&] {
                                      impl_->store->set(absl::StrCat("memory/", rank_),
                                                        memory.ok() ? (*memory)->address() : std::string("none"));
                                      for (int peer = 0; peer < world_size_; ++peer)
                                        addresses[peer] = impl_->store->get_to_str(absl::StrCat("memory/", peer));
                                    }),
                           "exchanging memory addresses"));
  const bool attached = memory.ok() && (*memory)->Attach(addresses).ok();
  // One rank elsewhere is enough for all to stay with Gloo.
  ASSIGN_OR_RETURN(Agreement agreement, AllAgree({attached ? 1 : 0}));
  if (agreement.min[0] == 0) return absl::OkStatus();
  host_memory_ = *std::move(memory);
  host_memory_->Seal();
  return absl::OkStatus();
}

absl::Status ProcessGroup::AllReduceSum(torch::Tensor tensor) {
  if (world_size_ == 1) return absl::OkStatus();
  if (host_memory_ != nullptr && tensor.is_cpu() && tensor.is_contiguous() &&
      HostMemoryGroup::Supports(tensor.scalar_type())) {
    return PeerLost(host_memory_->AllReduce(tensor.data_ptr(), tensor.numel(), tensor.scalar_type(), 1.0),
                    "all-reduce");
  }
  std::vector<torch::Tensor> tensors = {std::move(tensor)};
  return impl_->Wait("all-reduce", [&] { return impl_->group->allreduce(tensors); });
}

absl::Status ProcessGroup::Broadcast(torch::Tensor tensor, int root) {
  if (world_size_ == 1) return absl::OkStatus();
  if (host_memory_ != nullptr && tensor.is_cpu() && tensor.is_contiguous()) {
    return PeerLost(host_memory_->Broadcast(tensor.data_ptr(), static_cast<int64_t>(tensor.nbytes()), root),
                    "broadcast");
  }
  std::vector<torch::Tensor> tensors = {std::move(tensor)};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  return impl_->Wait("broadcast", [&] { return impl_->group->broadcast(tensors, options); });
}

absl::StatusOr<torch::Tensor> ProcessGroup::AllGather(const torch::Tensor& tensor) {
  if (world_size_ == 1) return tensor.unsqueeze(0).clone();
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes.insert(sizes.begin(), world_size_);
  ASSIGN_OR_RETURN(torch::Tensor all, RunTorch("all-gather", [&] { return torch::empty(sizes, tensor.options()); }));
  if (tensor.numel() == 0) return all;
  if (host_memory_ != nullptr && tensor.is_cpu() && tensor.is_contiguous()) {
    const auto bytes = static_cast<int64_t>(tensor.nbytes());
    RETURN_IF_ERROR(PeerLost(host_memory_->AllGather(tensor.data_ptr(), bytes, all.data_ptr()), "all-gather"));
    return all;
  }
  std::vector<torch::Tensor> mine = {tensor};
  std::vector<std::vector<torch::Tensor>> parts = {all.unbind(0)};
  RETURN_IF_ERROR(impl_->Wait("all-gather", [&] { return impl_->group->allgather(parts, mine); }));
  return all;
}

absl::StatusOr<Agreement> ProcessGroup::AllAgree(const std::vector<int64_t>& values) {
  Agreement agreement{values, values};
  if (world_size_ == 1 || values.empty()) return agreement;
  if (host_memory_ != nullptr && values.size() <= 64) {
    RETURN_IF_ERROR(PeerLost(host_memory_->MinMax(values, &agreement.min, &agreement.max), "agreement"));
    return agreement;
  }
  // One MAX over (values, -values) gives both extremes.
  const int64_t count = static_cast<int64_t>(values.size());
  torch::Tensor both = torch::empty({2 * count}, torch::kInt64);
  int64_t* data = both.data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    data[i] = values[i];
    data[count + i] = -values[i];
  }
  std::vector<torch::Tensor> tensors;
  RETURN_IF_ERROR(impl_->Wait("agreement", [&] {
    tensors = {both.to(device_)};
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp::MAX;
    return impl_->group->allreduce(tensors, options);
  }));
  RETURN_IF_ERROR(RunTorch("agreement", [&] { both = tensors[0].cpu(); }));
  data = both.data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    agreement.max[i] = data[i];
    agreement.min[i] = -data[count + i];
  }
  return agreement;
}

absl::StatusOr<std::vector<double>> ProcessGroup::AllReduceSum(const std::vector<double>& values) {
  if (world_size_ == 1 || values.empty()) return values;
  torch::Tensor tensor = torch::tensor(values, torch::kFloat64).to(device_);
  RETURN_IF_ERROR(AllReduceSum(tensor));
  std::vector<double> sums(values.size());
  RETURN_IF_ERROR(RunTorch("all-reduce", [&] {
    tensor = tensor.cpu();
    std::memcpy(sums.data(), tensor.data_ptr<double>(), sums.size() * sizeof(double));
  }));
  return sums;
}

absl::Status ProcessGroup::Barrier(absl::Duration deadline) {
  if (world_size_ == 1) return absl::OkStatus();
  if (host_memory_ != nullptr) return PeerLost(host_memory_->Barrier(deadline), "barrier");
  torch::Tensor one = torch::zeros({1}, torch::TensorOptions().device(device_));
  std::vector<torch::Tensor> tensors = {one};
  return impl_->Wait("barrier", [&] {
    c10d::AllreduceOptions options;
    options.timeout = ToMillis(deadline);
    return impl_->group->allreduce(tensors, options);
  });
}

void ProcessGroup::Abort() {
  if (impl_ == nullptr || impl_->aborted.exchange(true)) return;
  for (ProcessGroup* subgroup : impl_->Subgroups()) subgroup->Abort();
  if (host_memory_ != nullptr) host_memory_->Abort();
  RunTorch("aborting the process group", [&] { impl_->group->abort(); }).IgnoreError();
}

void ProcessGroup::SetTimeout(absl::Duration timeout) {
  timeout_ = timeout;
  for (ProcessGroup* subgroup : impl_->Subgroups()) subgroup->SetTimeout(timeout);
  if (host_memory_ != nullptr) host_memory_->SetTimeout(timeout);
  RunTorch("setting the timeout", [&] {
    impl_->group->getDefaultBackend()->setTimeout(ToMillis(timeout));
  }).IgnoreError();
}

c10d::ProcessGroup& ProcessGroup::c10d() const {
  return *impl_->group;
}

}  // namespace athanor

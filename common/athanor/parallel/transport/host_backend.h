// A c10d::Backend for the CPU: LibTorch's own code (Reducer, functional collectives, a user's) runs on it. It moves
// bytes through shared memory within a machine and sockets between machines (Peers), several times faster than Gloo on
// small messages. Sums are in the ranks' order. Every wait ends by its deadline or by abort().
//
//   ASSIGN_OR_RETURN(auto backend, HostBackend::Create({.rank = r, .world_size = n}, exchange));
//   process_group->setBackend(c10::kCPU, c10d::ProcessGroup::BackendType::CUSTOM, backend);
//
// Collectives run one after the other, in the order of the calls, on the backend's thread or on the one that waits for
// them first. All are there but sparse all-reduce, also for parts of uneven sizes; messages from rank to rank have tags
// (Mailbox), and are moved by the threads that send, receive and wait. Tensors are dense and on the CPU; those that are
// not contiguous are copied.
//
// Errors of a call's arguments are thrown at once; what goes wrong on the way is thrown by Work::wait() and is in its
// future. After the first error the group is of no further use.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/transport/host_collectives.h"
#include "athanor/parallel/transport/mailbox.h"
#include "athanor/parallel/transport/peers.h"

namespace athanor {

class HostBackend : public c10d::Backend {
 public:
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;
  using Tensors = std::vector<at::Tensor>;

  // Collective; `exchange` is called twice. Errors: Peers::Connect().
  static absl::StatusOr<c10::intrusive_ptr<HostBackend>> Create(const PeersOptions& options,
                                                                const AddressExchange& exchange);
  ~HostBackend() override;

  const std::string getBackendName() const override { return "athanor"; }
  void setTimeout(std::chrono::milliseconds timeout) override;
  void abort() override;
  void shutdown() override { abort(); }
  uint64_t getSequenceNumberForGroup() override;
  void setSequenceNumberForGroup() override {}

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  WorkPtr allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& options) override;
  WorkPtr allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& options) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::AllgatherOptions& options) override;
  WorkPtr gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) override;
  WorkPtr scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) override;
  WorkPtr reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                         const c10d::ReduceScatterOptions& options) override;
  WorkPtr _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                               const c10d::ReduceScatterOptions& options) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::ReduceScatterOptions& options) override;
  // Splits are counts along the first dimension; empty ones are even.
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                        std::vector<int64_t>& input_splits, const c10d::AllToAllOptions& options) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) override;
  WorkPtr send(Tensors& tensors, int peer, int tag) override;
  WorkPtr recv(Tensors& tensors, int peer, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions& options) override;

 private:
  class CollectiveWork;
  class MessageWork;
  using Body = std::function<absl::Status(HostCollectives&)>;

  HostBackend(std::unique_ptr<HostCollectives> collectives, std::unique_ptr<Mailbox> mailbox, absl::Duration timeout);
  WorkPtr Enqueue(c10d::OpType type, Tensors results, Body body);
  WorkPtr ReceiveFrom(Tensors& tensors, int peer, int tag);
  void CheckPeer(int peer, const char* call) const;
  void Loop();
  // Takes the next work and runs it on this thread; the lock is let go meanwhile.
  void RunFirst(std::unique_lock<std::mutex>& lock);
  // Runs the work on this thread if it is the next one and nobody has begun it.
  void Help(CollectiveWork* work);

  const std::unique_ptr<HostCollectives> collectives_;
  const std::unique_ptr<Mailbox> mailbox_;
  absl::Duration timeout_;  // of the calls to come
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<c10::intrusive_ptr<CollectiveWork>> queue_;
  bool busy_ = false;
  bool stopping_ = false;
  uint64_t calls_ = 0;
  std::thread thread_;
};

}  // namespace athanor

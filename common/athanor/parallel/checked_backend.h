// A c10d::Backend that compares, before each collective, what the ranks are about to enter (`comm.check`): the call,
// the reduction and root, dtypes and shapes. Ranks that differ all get an error that names both calls and where in the
// program each was made; the collective is not entered, so nothing hangs and no memory is overwritten.
//
//   ASSIGN_OR_RETURN(auto peers, Peers::Connect({.rank = r, .world_size = n}, exchange));   // of its own, over the CPU
//   backend = c10::make_intrusive<CheckedBackend>(std::move(backend), std::move(peers), absl::Seconds(60));
//
// For finding a fault: each call waits for the other ranks to make theirs, 10 to 50 us on one machine. Messages from
// rank to rank pass unchecked.
//
// Errors: a c10::ValueError for ranks that differ, a c10::DistBackendError that names the ranks that do not come.
// Threads: collectives on one thread at a time; abort() on any.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "absl/time/time.h"
#include "athanor/parallel/transport/host_collectives.h"
#include "athanor/parallel/transport/peers.h"

namespace athanor {

class CheckedBackend : public c10d::Backend {
 public:
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;
  using Tensors = std::vector<at::Tensor>;

  CheckedBackend(c10::intrusive_ptr<c10d::Backend> checked, std::unique_ptr<Peers> peers, absl::Duration timeout);

  const std::string getBackendName() const override { return checked_->getBackendName(); }
  c10::intrusive_ptr<Options> getBackendOptions() override { return checked_->getBackendOptions(); }
  void setTimeout(std::chrono::milliseconds timeout) override;
  void abort() override;
  void shutdown() override;
  bool supportsCoalescing() const override { return checked_->supportsCoalescing(); }
  void startCoalescing() override { checked_->startCoalescing(); }
  WorkPtr endCoalescing() override { return checked_->endCoalescing(); }
  uint64_t getSequenceNumberForGroup() override { return checked_->getSequenceNumberForGroup(); }
  void setSequenceNumberForGroup() override { checked_->setSequenceNumberForGroup(); }

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
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                        std::vector<int64_t>& input_splits, const c10d::AllToAllOptions& options) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) override;
  WorkPtr send(Tensors& tensors, int peer, int tag) override { return checked_->send(tensors, peer, tag); }
  WorkPtr recv(Tensors& tensors, int peer, int tag) override { return checked_->recv(tensors, peer, tag); }
  WorkPtr recvAnysource(Tensors& tensors, int tag) override { return checked_->recvAnysource(tensors, tag); }
  WorkPtr barrier(const c10d::BarrierOptions& options) override;

 private:
  // Throws unless every rank calls with the same text.
  void Check(const std::string& call);
  // Everybody's text, by rank.
  std::vector<std::string> Tell(const std::string& mine, size_t bytes, const std::string& call);

  const c10::intrusive_ptr<c10d::Backend> checked_;
  std::mutex mutex_;
  HostCollectives collectives_;
};

}  // namespace athanor

// The ranks of one generation and their collectives: our own transport (transport/host_backend.h) or Gloo on the CPU,
// NCCL on CUDA (builds with ATHANOR_CUDA).
//
//   // rank 0 hosts the store of the generation and tells the others where it is
//   ASSIGN_OR_RETURN(auto store, HostStore::Create({.host = "127.0.0.1"}));
//   // every rank
//   ASSIGN_OR_RETURN(auto group,
//                    ProcessGroup::Create({.rank = r, .world_size = n, .store_host = host, .store_port = port,
//                                          .prefix = "job-1/3", .hosted_store = store.get()}));
//   RETURN_IF_ERROR(group->AllReduceSum(tensor));
//
// Addresses of an earlier generation must never be met again: use a fresh store, and a prefix with job and generation.
//
// Errors: a collective that fails or runs into its timeout is UNAVAILABLE with failure kind peer_lost
// (athanor/torch/status.h): another rank is the cause. Ranks that meet in different collectives, sizes or dtypes get
// FAILED_PRECONDITION, which names both (backend "host"). After the first error the group is of no further use.
//
// SIGPIPE is ignored from the first store or group on, unless the program has its own handler: a vanished peer is an
// error, not a signal.
//
// Threads: collectives on one thread at a time, in the same order on every rank. Abort() on any thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace c10d {
class ProcessGroup;
}

namespace athanor {

// The key-value server through which the ranks of a generation find each other. Listens on `host` alone.
class HostStore {
 public:
  struct Options {
    std::string host = "127.0.0.1";  // address at which the other ranks reach this machine
    int port = 0;                    // 0: the system chooses
    absl::Duration timeout = absl::Seconds(60);
  };
  // UNAVAILABLE when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HostStore>> Create(const Options& options);
  ~HostStore();

  const std::string& host() const { return host_; }
  int port() const { return port_; }

 private:
  friend class ProcessGroup;
  struct Impl;
  HostStore(std::string host, int port, std::unique_ptr<Impl> impl);
  std::string host_;
  int port_ = 0;
  std::unique_ptr<Impl> impl_;
};

struct ProcessGroupOptions {
  int rank = 0;
  int world_size = 1;
  std::string store_host = "127.0.0.1";
  int store_port = 0;
  std::string prefix;                          // "<job>/<generation>"
  torch::Device device = torch::kCPU;          // of the tensors to be reduced
  std::string backend = "auto";                // "host", "gloo" (CPU), "nccl" (CUDA); auto: host or nccl
  absl::Duration timeout = absl::Seconds(60);  // of joining, and of each collective
  std::string bind_host = "127.0.0.1";         // this rank's own address; picks the network interface
  HostStore* hosted_store = nullptr;           // rank 0 may hand over its server's store; outlives the group
  bool shared_memory = true;  // ranks of one machine exchange gradients through memory when all of them can
  bool check = false;         // compares what the ranks enter before each collective (checked_backend.h)
};

// What every rank knows after AllAgree(): element-wise extremes over the ranks.
struct Agreement {
  std::vector<int64_t> min;
  std::vector<int64_t> max;
};

class HostMemoryGroup;

class ProcessGroup {
 public:
  // Joins; returns when every rank has. INVALID_ARGUMENT for ranks out of range, a device this build cannot serve, or a
  // backend that does not serve the device.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Create(const ProcessGroupOptions& options);
  ~ProcessGroup();

  int rank() const { return rank_; }
  int world_size() const { return world_size_; }
  const torch::Device& device() const { return device_; }
  absl::Duration timeout() const { return timeout_; }
  void SetTimeout(absl::Duration timeout);  // of the collectives to come

  // In place. The tensor is dense, contiguous and on the group's device.
  absl::Status AllReduceSum(torch::Tensor tensor);
  absl::Status Broadcast(torch::Tensor tensor, int root);
  // [world size, sizes of `tensor`…]: the tensors of all ranks in their order, which have one shape and dtype (any).
  // Dense, contiguous and on the group's device.
  absl::StatusOr<torch::Tensor> AllGather(const torch::Tensor& tensor);
  // A few numbers, the same count on every rank.
  absl::StatusOr<Agreement> AllAgree(const std::vector<int64_t>& values);
  absl::StatusOr<std::vector<double>> AllReduceSum(const std::vector<double>& values);
  // Returns when every rank has called it. DEADLINE_EXCEEDED (kind peer_lost) after `deadline` from now.
  absl::Status Barrier(absl::Duration deadline);

  // The group of some of these ranks (ascending, this one among them), made when it is first asked for and owned by
  // this one. Its ranks count from 0 in the order given. Collective over its ranks; aborted, and given its timeout,
  // with this group. All of the ranks: this group itself.
  absl::StatusOr<ProcessGroup*> Subgroup(const std::vector<int>& ranks);

  // Makes every collective in flight or to come fail, and those of subgroups. Any thread; idempotent.
  void Abort();

  // For code that hands the group to LibTorch (Reducer).
  c10d::ProcessGroup& c10d() const;
  // The transport between ranks of one machine; null when not all ranks share one, or it is switched off, or the device
  // is not the CPU.
  HostMemoryGroup* host_memory() const { return host_memory_.get(); }

 private:
  struct Impl;
  ProcessGroup();
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Joined(const ProcessGroupOptions& options,
                                                              const ProcessGroup* parent);
  absl::Status Join(const ProcessGroupOptions& options, const ProcessGroup* parent);
  void SetBackend(const ProcessGroupOptions& options);
  absl::Status JoinHostMemory();

  int rank_ = 0;
  int world_size_ = 1;
  torch::Device device_ = torch::kCPU;
  absl::Duration timeout_;
  std::unique_ptr<Impl> impl_;
  std::unique_ptr<HostMemoryGroup> host_memory_;
};

}  // namespace athanor

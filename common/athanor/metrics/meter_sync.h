// How the ranks of a job combine what their meters hold. Meters without one, or with one of a single rank, stay with
// their own process.
//
//   std::shared_ptr<MeterSync> sync = MakeMeterSync(members);
//   AverageMeters meters(sync);
//   RETURN_IF_ERROR(sync->Reseat(others));            // when the ranks change: the meters keep what they hold
//
// Collectives: every rank makes the same read-outs in the same order, on the thread that runs its other collectives.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/membership.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

class MeterSync {
 public:
  virtual ~MeterSync() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual torch::Device device() const = 0;
  // [world size, N]: the bytes of all ranks in their order. `bytes` is uint8 [N], contiguous on device(), of one length
  // on all ranks. UNAVAILABLE when a rank is gone. The only collective that metrics use.
  virtual absl::StatusOr<torch::Tensor> Gather(const torch::Tensor& bytes) = 0;
  // The ranks of the next read-out, on every rank between the same two. UNIMPLEMENTED where they cannot change.
  virtual absl::Status Reseat(const Membership& members);
  // Equal for two of them over the same ranks: what lies behind both is then read out in one exchange.
  virtual const void* group() const { return this; }
};

// The members' group outlives the result, or its next Reseat().
std::shared_ptr<MeterSync> MakeMeterSync(const Membership& members);
inline std::shared_ptr<MeterSync> MakeMeterSync(ProcessGroup& group) {
  return MakeMeterSync(Membership(&group));
}

// Rows of all ranks, in the order of the ranks, on sync.device(); ranks may have different counts, also none. All have
// the same dtype and sizes behind dim 0; INVALID_ARGUMENT on every rank when they do not. Rows of a rank without any
// may have another dtype, and sizes. One exchange of a few kilobytes, and one of the rows where they are more.
absl::StatusOr<torch::Tensor> GatherRows(MeterSync& sync, const torch::Tensor& rows);

}  // namespace athanor

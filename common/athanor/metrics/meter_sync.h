// How the ranks of a job combine what their meters hold. Meters without one stay with their own process.
//
//   auto sync = MakeMeterSync(*process_group);
//   AverageMeters meters(sync);
//
// Collectives: every rank makes the same read-outs in the same order, on the thread that runs its other collectives.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

class MeterSync {
 public:
  virtual ~MeterSync() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual torch::Device device() const = 0;
  // Sums `tensor` (contiguous float64 on device()) over the ranks, in place. UNAVAILABLE when a rank is gone.
  virtual absl::Status Sum(torch::Tensor tensor) = 0;
};

// The group outlives the result.
std::shared_ptr<MeterSync> MakeMeterSync(ProcessGroup& group);

// Rows of all ranks, in the order of the ranks; ranks may have different counts, also none. All have the same sizes
// behind dim 0 (INVALID_ARGUMENT). Two collectives: counts, rows. Exact for float64 and integers below 2^53.
absl::StatusOr<torch::Tensor> GatherRows(MeterSync& sync, const torch::Tensor& rows);

}  // namespace athanor

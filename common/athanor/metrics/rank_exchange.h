// What the ranks tell each other when metrics are read out. Internal to the containers of metrics.
//
//   RankPart part{.what = "AverageMeters: loss, acc", .tensors = {table}};
//   ASSIGN_OR_RETURN(RankParts ranks, ExchangeParts(*sync, {part}));      // ranks[r][0]: what rank r gave
//
// Every rank sends one block of kBlockBytes: its errors, what it reads out, and the tensors themselves when they are
// small. Only where some rank has more does a second exchange follow, of the rest, padded to the longest. What a rank
// knows alone (an error, another name, no samples) never decides whether it takes part, and everything that is decided
// follows from what all ranks got, bit for bit the same.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_values.h"

namespace athanor {

struct RankPart {
  std::string what;     // kind, names and options; the same on every rank
  absl::Status status;  // why this rank has nothing to give
  // Nothing new since the last read-out: where that is so on every rank, there is no second exchange.
  bool unchanged = false;
  std::vector<int64_t> numbers;
  std::vector<torch::Tensor> tensors;  // dense, of any dtypes and sizes, which may differ from rank to rank
};

using RankParts = std::vector<std::vector<RankPart>>;  // [rank][part]

constexpr int64_t kBlockBytes = 8192;

// All ranks' parts, tensors on sync.device(). When every part of every rank is unchanged, `tensors` may be empty.
// On all ranks alike: INVALID_ARGUMENT when `what` differs (names both), and the first rank's error ("rank 1: …").
absl::StatusOr<RankParts> ExchangeParts(MeterSync& sync, const std::vector<RankPart>& mine);

enum class ReadOut { kBatch, kAll };  // the last batch; everything

struct JointValues {
  MetricValues values;
  int64_t samples = 0;
  std::vector<torch::Tensor> weights;  // what each value is a mean over; empty: `samples`, all of them
};

// A container whose read-out is an exchange of parts, so that several of them can share one.
class JointReadOut {
 public:
  virtual ~JointReadOut() = default;
  virtual MeterSync* sync() const = 0;  // nullptr: no other ranks
  virtual RankPart PartFor(ReadOut of) = 0;
  // `parts`: by rank. The values, and the samples they are of.
  virtual absl::StatusOr<JointValues> FromParts(ReadOut of, const std::vector<RankPart>& parts) = 0;
};

// PartFor, exchange and FromParts of one container.
absl::StatusOr<JointValues> ReadJointly(JointReadOut& container, ReadOut of);

}  // namespace athanor

// The tensors of a saved container of metrics, taken out one by one and checked. Internal: use MetricSet::LoadState.
//
//   StateReader reader(state);
//   ASSIGN_OR_RETURN(torch::Tensor bins, reader.Take("curves.200", {torch::kInt64}, {{2, 200}}));
//   RETURN_IF_ERROR(reader.Done());      // nothing is left over
//
// Errors: INVALID_ARGUMENT that names the key, with what was found and what is allowed.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/metric_values.h"

namespace athanor {

class StateReader {
 public:
  static constexpr int64_t kAnySize = -1;

  // `state` outlives the reader.
  explicit StateReader(const TensorMap& state) : state_(state) {}

  // A copy, on the device of the saved one. No dtypes: any. No sizes: any with at least one dimension; kAnySize stands
  // for one of them.
  absl::StatusOr<torch::Tensor> Take(const std::string& key, const std::vector<torch::ScalarType>& dtypes,
                                     const std::optional<std::vector<int64_t>>& sizes);
  // One int64.
  absl::StatusOr<torch::Tensor> TakeCount(const std::string& key) { return Take(key, {torch::kInt64}, {{}}); }
  bool Has(const std::string& key) const { return state_.contains(key); }
  // For what Take cannot say about a tensor that it gave out.
  static absl::Status Wrong(const std::string& key, const torch::Tensor& found, const std::string& allowed);
  absl::Status Done() const;

 private:
  const TensorMap& state_;
  std::set<std::string> taken_;
};

}  // namespace athanor

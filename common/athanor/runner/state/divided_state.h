// Between what a rank owns of the parameters (athanor/parallel/strategies/data_strategy.h) and the tensors of a
// checkpoint: values that are like a parameter, its own, an average or a state of the optimizer, whole or in parts.
//
//   StoreLike(owned, average, "ema.head.weight", {}, &state);
//   ASSIGN_OR_RETURN(average, FindLike(owned, "ema.head.weight", restored.state));
//
// Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/training_state.h"
#include "athanor/parallel/strategies/data_strategy.h"

namespace athanor {

// `values` is like `owned.value`. `also`: further names of the same tensor.
void StoreLike(const OwnedParameter& owned, const torch::Tensor& values, const std::string& name,
               const std::vector<std::string>& also, TrainingState* state);

// INVALID_ARGUMENT (kind invalid) names the tensor and both shapes.
absl::Status CheckShape(const std::string& name, at::IntArrayRef found, at::IntArrayRef wanted);

// Of the state's tensor what is like `owned.value`; undefined: there is none of the name. INVALID_ARGUMENT (kind
// invalid) names a tensor of another shape, or whose parts are others.
absl::StatusOr<torch::Tensor> FindLike(const OwnedParameter& owned, const std::string& name,
                                       const TrainingState& state);

// What this rank wants of a checkpoint: of tensors that are like a divided parameter its parts, others whole.
// `tied`: TiedNames() of the module. `optimizer`: whether the optimizer's states are divided, too.
PartsWanted PartsOf(const std::vector<OwnedParameter>& owned,
                    const std::map<std::string, std::vector<std::string>>& tied, bool optimizer);

}  // namespace athanor

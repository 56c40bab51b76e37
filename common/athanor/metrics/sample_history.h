// Samples that are kept as they came: joined, saved and read. Internal to GlobalMetrics.
#pragma once

#include <string>
#include <vector>

#include "athanor/metrics/metric_func.h"
#include "athanor/metrics/state_reader.h"

namespace athanor {

// Which rows and entries of a batch count, also where the batch does not say.
torch::Tensor RowsOf(const MaskedBatch& batch);
torch::Tensor ValidOf(const MaskedBatch& batch);

// On the device of the last one: a restored history may lie on another.
MaskedBatch JoinSamples(const std::vector<MaskedBatch>& chunks);

// What `preprocess` makes of no batch at all.
MaskedBatch NoSamples(const Preprocess& preprocess);

// "<prefix>.{input,target,valid,rows}", of what Preprocess::Kept() gives; with "logits" in place of "input" where that
// has logits. States of earlier versions have probabilities there, which are read as well.
void SaveSamples(const std::string& prefix, const Preprocess& preprocess, const MaskedBatch& kept, TensorMap* state);
absl::StatusOr<MaskedBatch> ReadSamples(const std::string& prefix, const Preprocess& preprocess, StateReader* reader);

}  // namespace athanor

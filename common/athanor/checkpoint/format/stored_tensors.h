// The tensors of a manifest as JSON, checked. Internal to the module. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/checkpoint/format/manifest.h"

namespace athanor {

nlohmann::ordered_json EncodeTensors(const StoredTensors& tensors);

// Slices lie behind the headers of the manifest's shards and within them. DATA_LOSS says what is wrong with which
// tensor.
absl::StatusOr<StoredTensors> ParseTensors(const nlohmann::json& object, const Manifest& manifest);

}  // namespace athanor

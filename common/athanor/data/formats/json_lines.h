// Files of one JSON object a line as numbers and texts for training; tensors by name from a safetensors file.
//
//   {"x": [0.1, 0.2], "label": 1}
//   ASSIGN_OR_RETURN(auto dataset, OpenJsonLines("train.jsonl", {.input = "x", .target = "label"}));
//   ASSIGN_OR_RETURN(auto dataset, OpenSafetensors("train.safetensors", {.input = "images", .target = "labels"}));
//
// Both lie in memory. A damaged line is named, with what was found there: NOT_FOUND, DATA_LOSS.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/statusor.h"
#include "athanor/data/tensor_dataset.h"

namespace athanor {

struct FieldNames {
  std::string input = "input";
  std::string target = "target";  // "": none
};

struct JsonLinesOptions : FieldNames {
  bool skip_damaged = false;  // leave lines out that do not fit, and count them
};

struct JsonLinesDataset {
  std::shared_ptr<TensorDataset> dataset;
  int64_t skipped = 0;
  std::vector<std::string> errors;  // of the first 20 of them
};

// Every line as it is. Empty lines are skipped.
absl::StatusOr<std::vector<nlohmann::json>> ReadJsonLines(const std::string& path);

// Numbers, or (nested) lists of numbers, all of the shape of the first line. Targets are int64, exact, when all are
// whole numbers without a fraction, else float32; inputs are float32. Integers beyond 64 bits are damage, and so is
// NaN, which JSON has not.
absl::StatusOr<JsonLinesDataset> OpenJsonLines(const std::string& path, const JsonLinesOptions& options);

// Row i of both tensors is sample i.
absl::StatusOr<std::shared_ptr<TensorDataset>> OpenSafetensors(const std::string& path, const FieldNames& names);

}  // namespace athanor

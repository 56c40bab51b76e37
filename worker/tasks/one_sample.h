// What a task asks of its first sample before any rank waits for another: whether its model takes it.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/dataset.h"

namespace athanor {

// The first sample of the training data, on `device`.
inline absl::StatusOr<Batch> FirstSample(const std::map<std::string, std::shared_ptr<Dataset>>& datasets,
                                         const torch::Device& device) {
  ASSIGN_OR_RETURN(Batch batch, datasets.at("train")->Get({0}));
  batch.input = batch.input.to(device);
  batch.target = batch.target.to(device);
  for (auto& [name, tensor] : batch.more) tensor = tensor.to(device);
  return batch;
}

// Runs `step` without gradients. INVALID_ARGUMENT "<what>: <its exception>" where it throws.
inline absl::Status TryOn(const std::string& what, const std::function<void()>& step) {
  const torch::NoGradGuard no_grad;
  try {
    step();
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace athanor

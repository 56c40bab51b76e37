// A batch on another device.
#pragma once

#include <torch/torch.h>

#include "athanor/data/dataset.h"

namespace athanor {

// Every tensor of the batch on `device`; undefined ones stay undefined. `non_blocking`: copies from pinned memory are
// queued on the device's current stream. Nothing is copied where the batch is there already.
inline Batch ToDevice(Batch batch, torch::Device device, bool non_blocking = true) {
  for (torch::Tensor* tensor : {&batch.input, &batch.target}) {
    if (tensor->defined()) *tensor = tensor->to(device, non_blocking);
  }
  for (auto& [name, tensor] : batch.more) tensor = tensor.to(device, non_blocking);
  if (batch.ragged.has_value()) batch.ragged = batch.ragged->to(device, non_blocking);
  if (batch.ragged_target.has_value()) batch.ragged_target = batch.ragged_target->to(device, non_blocking);
  return batch;
}

}  // namespace athanor

// Reads arrays saved with numpy.save (.npy, format 1 to 3).
#pragma once

#include <torch/torch.h>

#include <string>

#include "absl/status/statusor.h"

namespace athanor {

// Little-endian f2, f4, f8, i1, i2, i4, i8, u1, b1, in C order. NOT_FOUND names the file; DATA_LOSS says what is wrong
// with it and where; INVALID_ARGUMENT: another type or order.
absl::StatusOr<torch::Tensor> ReadNpy(const std::string& path);

}  // namespace athanor

// JPEG and PNG files to tensors, C x H x W, uint8, RGB. Any thread.
//
//   ASSIGN_OR_RETURN(torch::Tensor image, DecodeImage("cat.jpg", bytes.data(), bytes.size()));
//
// The format is recognised by its first bytes. Grey images become RGB, 16-bit samples 8-bit, alpha is dropped; an
// orientation tag is not applied. DATA_LOSS names the image and what the decoder said; nothing of a damaged image comes
// back, not even its whole part. At most 2^28 pixels.
#pragma once

#include <torch/torch.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

absl::StatusOr<torch::Tensor> DecodeImage(const std::string& name, const void* bytes, size_t size);
absl::StatusOr<torch::Tensor> ReadImage(const std::string& path);

// A PNG of C x H x W, uint8, C = 1 or 3; for looking at what a data set gives.
absl::Status WritePng(const std::string& path, const torch::Tensor& image);

}  // namespace athanor

// The binary formats in which small image sets are published: IDX (MNIST and its kin) and CIFAR.
//
//   ASSIGN_OR_RETURN(ImageSet train, ReadMnist("data/mnist", /*train=*/true));
//   ASSIGN_OR_RETURN(auto dataset, TensorDataset::Make(train.images.to(torch::kFloat32) / 255, train.labels));
//
// Files may be gzipped (".gz" beside or instead of the plain name). DATA_LOSS names the file and the sample.
#pragma once

#include <torch/torch.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

struct ImageSet {
  torch::Tensor images;  // N x C x H x W, uint8
  torch::Tensor labels;  // N, int64
};

// Any IDX file: a tensor of its dtype (uint8, int8, int16, int32, float32, float64) and shape.
absl::StatusOr<torch::Tensor> ReadIdx(const std::string& path);

// train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-…, in `folder`. C = 1. DATA_LOSS when images and labels
// are not equally many.
absl::StatusOr<ImageSet> ReadMnist(const std::string& folder, bool train);

// Records of `label_bytes` bytes (CIFAR-10: 1; CIFAR-100: 2, coarse and fine, of which `label_byte` is taken) and 3 x
// 32 x 32 bytes, from all files in order. DATA_LOSS when a file is not a whole number of records, or a label is not
// below `classes`.
struct CifarOptions {
  int label_bytes = 1;
  int label_byte = 0;
  int classes = 10;
};
absl::StatusOr<ImageSet> ReadCifar(const std::vector<std::string>& paths, const CifarOptions& options = {});

}  // namespace athanor

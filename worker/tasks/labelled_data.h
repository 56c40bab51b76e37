// Tables of samples with a target each, from a file, divided into training and test samples: what digits_mlp,
// image_resnet and torchscript train on. Options of the job file read here:
//
//   data         .csv: one sample a line, the target in the last column; .npy: an array whose first axis counts the
//   samples target_file  .npy of targets; needed with a .npy `data`, refused with a .csv test_every   the samples n,
//   2n, 3n … (counted from 1) are the test set, the others the training set; 0: no test set. Default 5 scale pixels and
//   features are divided by it. Default 1
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/task/task_options.h"

namespace athanor {

struct LabelledDataOptions {
  std::string data;
  std::string target_file;
  int64_t test_every = 5;
  double scale = 1;
  // Set by the task, not by the job file:
  std::vector<int64_t> sample_shape;  // of one sample; empty: as it lies in the file
  int64_t classes = 0;                // > 0: targets are class numbers below it; 0: float32 of any value
};

// Reads the options above. Mistakes come out of options.Check().
LabelledDataOptions ReadLabelledDataOptions(TaskOptions& options, double default_scale);

// {"train": ..., "test": ...}; inputs float32. NOT_FOUND and DATA_LOSS name the file, and the sample whose class does
// not exist.
absl::StatusOr<std::map<std::string, std::shared_ptr<Dataset>>> LoadLabelledData(const LabelledDataOptions& options);

}  // namespace athanor

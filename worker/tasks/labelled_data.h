// Samples with a target each, from files, divided into splits: what digits_mlp, image_resnet, torchscript and
// train_step train on. Options of the job file read here (keys that end in data, file or files hold paths, relative to
// the job file):
//
//   data          .csv: one sample a line, the target in the last column; .npy: an array whose first axis counts the
//                 samples; .bin: tokens (token_dataset.h), where the task takes them
//   target_file   .npy of targets; needed with a .npy `data`, refused otherwise
//   input_files   {name: .npy}: further inputs of the samples, by name, with a .npy `data`, where the task takes them
//   val_data, val_target_file, val_input_files; test_data, test_target_file, test_input_files
//                 the same for the splits "val" and "test"
//   test_every    the samples n, 2n, 3n … (counted from 1) of `data` are the test set, the others the training set; 0:
//                 no test set. Default 5; 0 with val_data, test_data or tokens
//   scale         inputs of the .csv or `data` are divided by it. Default 1
//   block_size    of tokens, where the task takes them: length of a sample. Its target is the same, one token further.
//                 Default 256
//   token_bytes   the same, of tokens without a header: 2 or 4. Default 2
//   sample_weights_file  .npy, a number for each sample of `data`: a pass draws samples with replacement, in proportion
//   balance_classes      the same, with each class as often as the others. Default false
//   samples_per_epoch    how many a pass draws. Default: as many as there are
//   sampler_seed         of the draws. Default 0
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/task/task_options.h"

namespace athanor {

// One split's.
struct LabelledFiles {
  std::string data;
  std::string target_file;
  std::map<std::string, std::string> input_files;
};

struct LabelledDataOptions : LabelledFiles {
  LabelledFiles val, test;  // without `data`: none
  int64_t test_every = 5;
  double scale = 1;
  int64_t block_size = 256;
  int64_t token_bytes = 2;
  std::string sample_weights_file;
  bool balance_classes = false;
  int64_t samples_per_epoch = 0;
  int64_t sampler_seed = 0;
  // Set by the task, not by the job file:
  std::vector<int64_t> sample_shape;  // of one sample; empty: as it lies in the file
  int64_t classes = 0;                // > 0: targets are class numbers below it; 0: numbers of any value
  std::optional<torch::ScalarType> input_type = torch::kFloat32;   // unset: float32, int64 where the file has integers
  std::optional<torch::ScalarType> target_type = torch::kFloat32;  // the same, of targets without classes

  bool tokens() const;
};

// What a task takes besides tables of one input.
struct LabelledDataUse {
  bool tokens = false;
  bool several_inputs = false;
  int64_t block_size = 256;  // of tokens, by default
};

// Reads the options above. Mistakes come out of options.Check().
LabelledDataOptions ReadLabelledDataOptions(TaskOptions& options, double default_scale, LabelledDataUse use = {});

// {"train": …, "val": …, "test": …}; further inputs are in Batch::more. NOT_FOUND and DATA_LOSS name the file, and the
// sample whose class does not exist or is no whole number; INVALID_ARGUMENT files that do not fit together.
absl::StatusOr<std::map<std::string, std::shared_ptr<Dataset>>> LoadLabelledData(const LabelledDataOptions& options);

}  // namespace athanor

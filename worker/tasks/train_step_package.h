// What scripts/export_train_step.py writes: a folder with a training and an evaluation step that AOTInductor compiled,
// the initial weights, and train_step.json, which describes them.
//
//   ASSIGN_OR_RETURN(TrainStepManifest manifest, ReadTrainStepManifest("digits.train_step"));
//   ASSIGN_OR_RETURN(auto package, TrainStepPackage::Load(std::move(manifest)));
//   TrainStepResult result = package->Train(batch);   // result.gradients[i] belongs to package->trainable()[i]
//
// Errors say "task.options.package: ..."; NOT_FOUND and DATA_LOSS name the file. The step's code is loaded into the
// process and runs with its rights. Not thread-safe; the training thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"

namespace torch::inductor {
class AOTIModelPackageLoader;
}

namespace athanor {

struct TrainStepTensor {
  std::string name;               // as in state_dict()
  std::vector<std::string> also;  // its other names there (tied weights)
  std::vector<int64_t> shape;
  torch::ScalarType dtype = torch::kFloat32;
  bool trainable = false;   // parameters
  bool persistent = false;  // buffers: in state_dict()
  bool updated = false;     // buffers: a training step changes it
};

// One sample of the input or the target.
struct TrainStepSample {
  std::vector<int64_t> shape;
  torch::ScalarType dtype = torch::kFloat32;
};

struct TrainStepFile {
  std::string path;  // in the folder
  uint64_t size = 0;
  uint32_t crc32 = 0;
};

// train_step.json.
struct TrainStepManifest {
  std::string folder;
  std::string torch_version;
  std::vector<std::string> cpu_flags;  // CPU features in use, as /proc/cpuinfo calls them
  std::string precision;               // "fp32", "bf16"
  TrainStepSample input, target;
  std::map<std::string, TrainStepSample> more;  // further inputs, by the names of forward's arguments
  int64_t classes = 0;               // > 0: the steps give scores, N x classes, and targets are class numbers
  std::vector<std::string> metrics;  // of the model's own
  std::vector<TrainStepTensor> parameters, buffers;
  std::vector<TrainStepFile> files;
};

// INVALID_ARGUMENT for something else than a package, NOT_FOUND, DATA_LOSS.
absl::StatusOr<TrainStepManifest> ReadTrainStepManifest(const std::string& folder);
// NOT_FOUND or DATA_LOSS when a file of the package is missing or damaged.
absl::Status CheckTrainStepFiles(const TrainStepManifest& manifest);
// The same, and INVALID_ARGUMENT when another torch or CPU is needed.
absl::Status CheckTrainStepPackage(const TrainStepManifest& manifest);

struct TrainStepResult {
  torch::Tensor loss;    // 0-dim
  torch::Tensor scores;  // undefined without classes
  std::map<std::string, torch::Tensor> metrics;
  std::vector<torch::Tensor> gradients;  // of Train(): each in memory of its own
};

class TrainStepPackage {
 public:
  // Verifies every file and that this program and this CPU can run the code.
  static absl::StatusOr<std::unique_ptr<TrainStepPackage>> Load(TrainStepManifest manifest);
  ~TrainStepPackage();

  const TrainStepManifest& manifest() const { return manifest_; }
  // The parameters and persistent buffers under Python's names.
  const std::shared_ptr<torch::nn::Module>& module() const { return module_; }
  const std::vector<torch::Tensor>& trainable() const { return trainable_; }

  // N samples of the manifest's shapes, N > 0, of any dtype: input, target, and the manifest's further inputs in
  // Batch::more. Train() also updates the buffers. Exceptions are LibTorch's.
  TrainStepResult Train(const Batch& batch);
  TrainStepResult Evaluate(const Batch& batch);

 private:
  using Loader = torch::inductor::AOTIModelPackageLoader;

  explicit TrainStepPackage(TrainStepManifest manifest);
  absl::Status OwnWeights();
  absl::Status LoadSteps();
  std::vector<torch::Tensor> Run(Loader* step, const Batch& batch, size_t more_results) const;
  TrainStepResult Results(const std::vector<torch::Tensor>& outputs) const;

  const TrainStepManifest manifest_;
  std::shared_ptr<torch::nn::Module> module_;
  std::vector<torch::Tensor> parameters_, buffers_, trainable_;
  std::unique_ptr<Loader> train_, eval_;
};

}  // namespace athanor

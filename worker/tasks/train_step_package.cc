#include "worker/tasks/train_step_package.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/tensor_file.h"

namespace athanor {
namespace {

constexpr char kWeights[] = "weights.safetensors";

// "features.0.weight" is the tensor "weight" of the module "0" of the module "features", as in Python.
class ParameterTree : public torch::nn::Module {
 public:
  // Under all of its names.
  void Add(const TrainStepTensor& what, const torch::Tensor& tensor, bool parameter) {
    Add(what.name, what, tensor, parameter);
    for (const std::string& name : what.also) Add(name, what, tensor, parameter);
  }

 private:
  void Add(const std::string& name, const TrainStepTensor& what, const torch::Tensor& tensor, bool parameter) {
    const std::vector<std::string> path = absl::StrSplit(name, '.');
    ParameterTree* place = this;
    for (size_t i = 0; i + 1 < path.size(); ++i) place = place->Child(path[i]);
    if (parameter) {
      place->register_parameter(path.back(), tensor, what.trainable);
    } else {
      place->register_buffer(path.back(), tensor);
    }
  }
  ParameterTree* Child(const std::string& name) {
    std::shared_ptr<ParameterTree>& child = children_[name];
    if (child == nullptr) child = register_module(name, std::make_shared<ParameterTree>());
    return child.get();
  }

  std::map<std::string, std::shared_ptr<ParameterTree>> children_;
};

absl::StatusOr<torch::Tensor> Take(const TrainStepTensor& what, const TensorFile& file, const std::string& path) {
  const auto found = file.tensors.find(what.name);
  if (found == file.tensors.end()) {
    return absl::DataLossError(absl::StrCat("task.options.package: ", path, " has no tensor ", what.name));
  }
  const torch::Tensor& tensor = found->second;
  if (tensor.sizes() == what.shape && tensor.scalar_type() == what.dtype) return tensor;
  return absl::DataLossError(absl::StrCat("task.options.package: ", path, ": ", what.name, " is ",
                                          c10::str(tensor.sizes(), " ", tensor.scalar_type()), ", not ",
                                          c10::str(torch::IntArrayRef(what.shape), " ", what.dtype)));
}

// The first line: LibTorch adds its own stack.
std::string FirstLine(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

torch::Tensor Fitting(const torch::Tensor& samples, const TrainStepSample& sample, const std::string& what) {
  std::vector<int64_t> shape = sample.shape;
  shape.insert(shape.begin(), samples.dim() == 0 ? 0 : samples.size(0));
  TORCH_CHECK(shape[0] > 0 && samples.numel() == c10::multiply_integers(shape), "the ", what, " has shape ",
              samples.sizes(), "; the package takes samples of shape ", torch::IntArrayRef(sample.shape));
  // 0.7 as a whole number would be 0, without a word.
  const bool cuts = samples.is_floating_point() && !c10::isFloatingType(sample.dtype);
  TORCH_CHECK(!cuts || samples.equal(samples.floor()), "the ", what,
              " holds numbers that are not whole; the package takes ", sample.dtype);
  return samples.to(sample.dtype).reshape(shape).contiguous();
}

}  // namespace

TrainStepPackage::TrainStepPackage(TrainStepManifest manifest) : manifest_(std::move(manifest)) {}

TrainStepPackage::~TrainStepPackage() = default;

absl::StatusOr<std::unique_ptr<TrainStepPackage>> TrainStepPackage::Load(TrainStepManifest manifest) {
  RETURN_IF_ERROR(CheckTrainStepPackage(manifest));
  std::unique_ptr<TrainStepPackage> package(new TrainStepPackage(std::move(manifest)));
  RETURN_IF_ERROR(package->OwnWeights());
  RETURN_IF_ERROR(package->LoadSteps());
  return package;
}

absl::Status TrainStepPackage::OwnWeights() {
  const std::string path = absl::StrCat(manifest_.folder, "/", kWeights);
  absl::StatusOr<TensorFile> file = ReadTensorFile(path);
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat("task.options.package: ", file.status().message()));
  }
  auto tree = std::make_shared<ParameterTree>();
  try {
    for (const TrainStepTensor& what : manifest_.parameters) {
      ASSIGN_OR_RETURN(torch::Tensor tensor, Take(what, *file, path));
      tree->Add(what, tensor, /*parameter=*/true);
      parameters_.push_back(tensor);
      if (what.trainable) trainable_.push_back(tensor);
    }
    for (const TrainStepTensor& what : manifest_.buffers) {
      ASSIGN_OR_RETURN(torch::Tensor tensor, Take(what, *file, path));
      if (what.persistent) tree->Add(what, tensor, /*parameter=*/false);
      buffers_.push_back(tensor);
    }
  } catch (const std::exception& error) {
    return absl::DataLossError(
        absl::StrCat("task.options.package: ", manifest_.folder, " does not fit together: ", FirstLine(error)));
  }
  if (trainable_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("task.options.package: ", manifest_.folder, " has no parameters to train"));
  }
  module_ = std::move(tree);
  return absl::OkStatus();
}

absl::Status TrainStepPackage::LoadSteps() {
  for (const auto& [name, step] : {std::pair("train", &train_), std::pair("eval", &eval_)}) {
    const std::string path = absl::StrCat(manifest_.folder, "/", name);
    try {
      *step = std::make_unique<Loader>(path);
    } catch (const std::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat("task.options.package: the code in ", path,
                                                     " cannot be loaded: ", FirstLine(error),
                                                     "; export it again with scripts/export_train_step.py"));
    }
  }
  return absl::OkStatus();
}

std::vector<torch::Tensor> TrainStepPackage::Run(Loader* step, const Batch& batch, size_t more_results) const {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> arguments = parameters_;
  arguments.insert(arguments.end(), buffers_.begin(), buffers_.end());
  arguments.push_back(Fitting(batch.input, manifest_.input, "input"));
  for (const auto& [name, sample] : manifest_.more) {
    const auto given = batch.more.find(name);
    TORCH_CHECK(given != batch.more.end(), "the batch has no input '", name, "', which the package takes");
    arguments.push_back(Fitting(given->second, sample, absl::StrCat("input ", name)));
  }
  arguments.push_back(Fitting(batch.target, manifest_.target, "target"));
  std::vector<torch::Tensor> outputs = step->run(arguments);
  const size_t wanted = 1 + (manifest_.classes > 0 ? 1 : 0) + manifest_.metrics.size() + more_results;
  TORCH_CHECK(outputs.size() == wanted, "the package's code gives ", outputs.size(), " results, not ", wanted);
  return outputs;
}

TrainStepResult TrainStepPackage::Results(const std::vector<torch::Tensor>& outputs) const {
  TrainStepResult result;
  auto next = outputs.begin();
  result.loss = *next++;
  if (manifest_.classes > 0) result.scores = *next++;
  for (const std::string& name : manifest_.metrics) result.metrics[name] = *next++;
  return result;
}

TrainStepResult TrainStepPackage::Train(const Batch& batch) {
  size_t updated = 0;
  for (const TrainStepTensor& buffer : manifest_.buffers) updated += buffer.updated ? 1 : 0;
  const std::vector<torch::Tensor> outputs = Run(train_.get(), batch, trainable_.size() + updated);
  TrainStepResult result = Results(outputs);
  auto next = outputs.end() - static_cast<std::ptrdiff_t>(trainable_.size() + updated);

  // Compiled code may give the same memory twice (equal gradients, a sum's gradient), or an argument back. Optimizers
  // and clipping change gradients in place.
  std::set<const void*> taken = {batch.input.storage().data(), batch.target.storage().data()};
  for (const auto& [name, tensor] : batch.more) taken.insert(tensor.storage().data());
  for (const torch::Tensor& tensor : parameters_) taken.insert(tensor.storage().data());
  for (const torch::Tensor& tensor : buffers_) taken.insert(tensor.storage().data());
  for (size_t i = 0; i < trainable_.size(); ++i, ++next) {
    const bool own = taken.insert(next->storage().data()).second && next->is_non_overlapping_and_dense();
    result.gradients.push_back(own ? *next : next->clone(at::MemoryFormat::Contiguous));
  }
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (manifest_.buffers[i].updated) buffers_[i].copy_(*next++);
  }
  return result;
}

TrainStepResult TrainStepPackage::Evaluate(const Batch& batch) {
  return Results(Run(eval_.get(), batch, 0));
}

}  // namespace athanor

// image_resnet: a small residual network (pre-activation, group normalisation: no statistics that ranks would have to
// share). Options besides those of labelled_data.h and classification.h (scale: default 1):
//
//   image    [channels, height, width] of one image. Default [1, 8, 8]
//   classes  Default 10
//   width    channels of the first stage, a multiple of 8; each further stage has twice as many at half the size.
//   Default 16 blocks   residual blocks in each stage, a list. Default [1, 1, 1]
//
// Splits "train" and "test"; metric "accuracy".
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>

#include "athanor/base/status_macros.h"
#include "worker/tasks/builtin_tasks.h"
#include "worker/tasks/classification.h"
#include "worker/tasks/labelled_data.h"

namespace athanor {
namespace {

namespace nn = torch::nn;

constexpr int64_t kGroups = 8;

nn::Conv2d Convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return nn::Conv2d(nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

class ResidualBlockImpl : public nn::Module {
 public:
  ResidualBlockImpl(int64_t in, int64_t out, int64_t stride)
      : norm1_(register_module("norm1", nn::GroupNorm(kGroups, in))),
        conv1_(register_module("conv1", Convolution(in, out, 3, stride))),
        norm2_(register_module("norm2", nn::GroupNorm(kGroups, out))),
        conv2_(register_module("conv2", Convolution(out, out, 3, 1))) {
    if (in != out || stride != 1) shortcut_ = register_module("shortcut", Convolution(in, out, 1, stride));
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const torch::Tensor active = torch::relu(norm1_(x));
    const torch::Tensor changed = conv2_(torch::relu(norm2_(conv1_(active))));
    return changed + (shortcut_.is_empty() ? x : shortcut_(active));
  }

 private:
  nn::GroupNorm norm1_;
  nn::Conv2d conv1_;
  nn::GroupNorm norm2_;
  nn::Conv2d conv2_;
  nn::Conv2d shortcut_{nullptr};
};
TORCH_MODULE(ResidualBlock);

class ResNetImpl : public nn::Module {
 public:
  ResNetImpl(int64_t channels, int64_t width, const std::vector<int64_t>& blocks, int64_t classes)
      : stem_(register_module("stem", Convolution(channels, width, 3, 1))) {
    int64_t in = width;
    for (size_t stage = 0; stage < blocks.size(); ++stage) {
      const int64_t out = width << stage;
      for (int64_t block = 0; block < blocks[stage]; ++block) {
        stages_->push_back(ResidualBlock(in, out, stage > 0 && block == 0 ? 2 : 1));
        in = out;
      }
    }
    register_module("stages", stages_);
    norm_ = register_module("norm", nn::GroupNorm(kGroups, in));
    head_ = register_module("head", nn::Linear(in, classes));
  }

  torch::Tensor forward(torch::Tensor x) {
    x = stages_->forward(stem_(x));
    return head_(torch::relu(norm_(x)).mean({2, 3}));
  }

 private:
  nn::Conv2d stem_;
  nn::Sequential stages_;
  nn::GroupNorm norm_{nullptr};
  nn::Linear head_{nullptr};
};
TORCH_MODULE(ResNet);

class ImageResNet : public ClassificationTask {
 public:
  absl::Status Setup(const TaskContext& context) override {
    TaskOptions options("image_resnet", context.options);
    LabelledDataOptions data = ReadLabelledDataOptions(options, 1);
    data.sample_shape = options.Integers("image", {1, 8, 8}, 1, 4096, 3);
    data.classes = options.Integer("classes", 10, 2, 1 << 20);
    ReadMetricsOption(&options, data.classes);
    const int64_t width = options.Integer("width", 16, kGroups, 4096);
    const std::vector<int64_t> blocks = options.Integers("blocks", {1, 1, 1}, 1, 64, 6);
    if (data.sample_shape.size() != 3) options.Complain("image", "allowed: [channels, height, width]");
    if (width % kGroups != 0) options.Complain("width", "allowed: a multiple of 8");
    if (blocks.empty()) options.Complain("blocks", "allowed: at least one stage");
    RETURN_IF_ERROR(options.Check());
    ASSIGN_OR_RETURN(datasets_, LoadLabelledData(data));
    model_ = ResNet(data.sample_shape[0], width, blocks, data.classes);
    return absl::OkStatus();
  }

  std::shared_ptr<nn::Module> Model() override { return model_.ptr(); }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }
  StepOutput Forward(const Batch& batch) override { return Classified(model_->forward(batch.input), batch.target); }

 private:
  ResNet model_{nullptr};
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeImageResNet() {
  return std::make_unique<ImageResNet>();
}

}  // namespace athanor

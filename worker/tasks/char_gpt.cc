// char_gpt: a decoder-only transformer that predicts the next byte of a text. Options:
//
//   data        a text file; its different bytes are the vocabulary
//   n_layer     transformer blocks. Default 4          n_head      attention heads. Default 4
//   n_embd      width, a multiple of n_head. Default 128
//   block_size  bytes of context. Default 128          stride      between training windows. Default block_size / 2
//   dropout     Default 0                              val_share   the end of the text that is held out. Default 0.1
//
// Splits "train" and "val". The loss is the cross-entropy per byte in nats; metric "bits_per_char" is the same in bits.
#include <torch/torch.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>

#include "athanor/base/status_macros.h"
#include "athanor/data/formats/byte_text_dataset.h"
#include "athanor/task/task_options.h"
#include "athanor/torch/fp8_linear.h"
#include "worker/tasks/builtin_tasks.h"

namespace athanor {
namespace {

namespace nn = torch::nn;

struct GptShape {
  int64_t layers = 4, heads = 4, width = 128, block = 128, vocabulary = 0;
  double dropout = 0;
};

Fp8Linear Projection(int64_t in, int64_t out, double deviation) {
  Fp8Linear layer(in, out);
  torch::NoGradGuard no_grad;
  layer->weight.normal_(0, deviation);
  layer->bias.zero_();
  return layer;
}

class GptBlockImpl : public nn::Module {
 public:
  explicit GptBlockImpl(const GptShape& shape) : shape_(shape) {
    const double residual = 0.02 / std::sqrt(2.0 * static_cast<double>(shape.layers));
    norm1_ = register_module("norm1", nn::LayerNorm(nn::LayerNormOptions({shape.width})));
    qkv_ = register_module("qkv", Projection(shape.width, 3 * shape.width, 0.02));
    attention_out_ = register_module("attention_out", Projection(shape.width, shape.width, residual));
    norm2_ = register_module("norm2", nn::LayerNorm(nn::LayerNormOptions({shape.width})));
    up_ = register_module("up", Projection(shape.width, 4 * shape.width, 0.02));
    down_ = register_module("down", Projection(4 * shape.width, shape.width, residual));
  }

  torch::Tensor forward(torch::Tensor x) {
    x = x + Drop(attention_out_(Attend(norm1_(x))));
    return x + Drop(down_(torch::gelu(up_(norm2_(x)))));
  }

 private:
  torch::Tensor Drop(const torch::Tensor& x) { return torch::dropout(x, shape_.dropout, is_training()); }

  torch::Tensor Attend(const torch::Tensor& x) {
    const int64_t batch = x.size(0), length = x.size(1);
    const torch::Tensor qkv =
        qkv_(x).view({batch, length, 3, shape_.heads, shape_.width / shape_.heads}).permute({2, 0, 3, 1, 4});
    const torch::Tensor seen = torch::scaled_dot_product_attention(
        qkv[0], qkv[1], qkv[2], {}, is_training() ? shape_.dropout : 0.0, /*is_causal=*/true);
    return seen.transpose(1, 2).reshape({batch, length, shape_.width});
  }

  const GptShape shape_;
  nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  Fp8Linear qkv_{nullptr}, attention_out_{nullptr}, up_{nullptr}, down_{nullptr};
};
TORCH_MODULE(GptBlock);

class GptImpl : public nn::Module {
 public:
  explicit GptImpl(const GptShape& shape) : shape_(shape) {
    tokens_ = register_module("tokens", nn::Embedding(shape.vocabulary, shape.width));
    positions_ = register_module("positions", nn::Embedding(shape.block, shape.width));
    for (int64_t i = 0; i < shape.layers; ++i) blocks_->push_back(GptBlock(shape));
    register_module("blocks", blocks_);
    norm_ = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({shape.width})));
    head_ = register_module("head", Projection(shape.width, shape.vocabulary, 0.02));
    torch::NoGradGuard no_grad;
    tokens_->weight.normal_(0, 0.02);
    positions_->weight.normal_(0, 0.02);
  }

  torch::Tensor forward(const torch::Tensor& tokens) {
    torch::Tensor x = tokens_(tokens) + positions_->weight.slice(0, 0, tokens.size(1));
    x = torch::dropout(x, shape_.dropout, is_training());
    return head_(norm_(blocks_->forward(x)));
  }

 private:
  const GptShape shape_;
  nn::Embedding tokens_{nullptr}, positions_{nullptr};
  nn::Sequential blocks_;
  nn::LayerNorm norm_{nullptr};
  Fp8Linear head_{nullptr};
};
TORCH_MODULE(Gpt);

class CharGpt : public Task {
 public:
  absl::Status Setup(const TaskContext& context) override {
    TaskOptions options("char_gpt", context.options);
    const std::string data = options.RequiredText("data");
    GptShape shape;
    shape.layers = options.Integer("n_layer", shape.layers, 1, 256);
    shape.heads = options.Integer("n_head", shape.heads, 1, 256);
    shape.width = options.Integer("n_embd", shape.width, 1, 65536);
    shape.block = options.Integer("block_size", shape.block, 1, 1 << 20);
    shape.dropout = options.Number("dropout", 0, 0, 0.95);
    const int64_t stride = options.Integer("stride", std::max<int64_t>(shape.block / 2, 1), 1, 1 << 20);
    const double val_share = options.Number("val_share", 0.1, 0.001, 0.9);
    if (shape.width % shape.heads != 0) options.Complain("n_embd", "allowed: a multiple of n_head");
    RETURN_IF_ERROR(options.Check());

    ASSIGN_OR_RETURN(
        auto train,
        ByteTextDataset::Open(data, {.block_size = shape.block, .stride = stride, .begin = 0, .end = 1 - val_share}));
    ASSIGN_OR_RETURN(auto val,
                     ByteTextDataset::Open(data, {.block_size = shape.block, .begin = 1 - val_share, .end = 1}));
    shape.vocabulary = train->vocabulary_size();
    datasets_ = {{"train", train}, {"val", val}};
    model_ = Gpt(shape);
    return absl::OkStatus();
  }

  std::shared_ptr<nn::Module> Model() override { return model_.ptr(); }
  std::map<std::string, std::shared_ptr<Dataset>> Datasets() override { return datasets_; }

  StepOutput Forward(const Batch& batch) override {
    const torch::Tensor logits = model_->forward(batch.input);
    StepOutput output;
    output.loss = torch::cross_entropy_loss(logits.flatten(0, 1), batch.target.flatten());
    output.metrics["bits_per_char"] = output.loss.detach() / std::log(2.0);
    return output;
  }

 private:
  Gpt model_{nullptr};
  std::map<std::string, std::shared_ptr<Dataset>> datasets_;
};

}  // namespace

std::unique_ptr<Task> MakeCharGpt() {
  return std::make_unique<CharGpt>();
}

}  // namespace athanor

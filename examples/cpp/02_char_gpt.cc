// A small GPT that learns to spell from a text file, and then writes some text of its own.
//
//   02_char_gpt FILE [steps]
//
// The same model as a job of the service, over several ranks: examples/jobs/char_gpt.yaml.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/formats/byte_text_dataset.h"
#include "athanor/runner/torch_runner.h"

namespace {

namespace nn = torch::nn;

constexpr int64_t kBlock = 64, kWidth = 64, kHeads = 4, kLayers = 2;

struct BlockImpl : nn::Module {
  BlockImpl() {
    register_module("norm1", norm1);
    register_module("qkv", qkv);
    register_module("out", out);
    register_module("norm2", norm2);
    register_module("up", up);
    register_module("down", down);
  }
  torch::Tensor forward(torch::Tensor x) {
    const int64_t batch = x.size(0), length = x.size(1);
    const torch::Tensor heads =
        qkv(norm1(x)).view({batch, length, 3, kHeads, kWidth / kHeads}).permute({2, 0, 3, 1, 4});
    const torch::Tensor seen = torch::scaled_dot_product_attention(heads[0], heads[1], heads[2], {}, 0, true);
    x = x + out(seen.transpose(1, 2).reshape({batch, length, kWidth}));
    return x + down(torch::gelu(up(norm2(x))));
  }
  nn::LayerNorm norm1{nn::LayerNormOptions({kWidth})}, norm2{nn::LayerNormOptions({kWidth})};
  nn::Linear qkv{kWidth, 3 * kWidth}, out{kWidth, kWidth}, up{kWidth, 4 * kWidth}, down{4 * kWidth, kWidth};
};
TORCH_MODULE(Block);

struct GptImpl : nn::Module {
  explicit GptImpl(int64_t vocabulary) : tokens(vocabulary, kWidth), head(kWidth, vocabulary) {
    register_module("tokens", tokens);
    register_module("positions", positions);
    for (int64_t i = 0; i < kLayers; ++i) blocks->push_back(Block());
    register_module("blocks", blocks);
    register_module("norm", norm);
    register_module("head", head);
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return head(norm(blocks->forward(tokens(x) + positions->weight.slice(0, 0, x.size(1)))));
  }
  nn::Embedding tokens, positions{kBlock, kWidth};
  nn::Sequential blocks;
  nn::LayerNorm norm{nn::LayerNormOptions({kWidth})};
  nn::Linear head;
};
TORCH_MODULE(Gpt);

std::string Write(Gpt model, const std::vector<uint8_t>& vocabulary, int64_t count) {
  const torch::NoGradGuard no_grad;
  torch::Tensor tokens = torch::zeros({1, 1}, torch::kInt64);
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    const torch::Tensor context = tokens.slice(1, std::max<int64_t>(0, tokens.size(1) - kBlock));
    const torch::Tensor chances = torch::softmax(model(context).select(1, -1) / 0.8, -1);
    const torch::Tensor next = torch::multinomial(chances, 1);
    tokens = torch::cat({tokens, next}, 1);
    text += static_cast<char>(vocabulary[next.item<int64_t>()]);
  }
  return text;
}

absl::Status Run(const std::string& file, int64_t steps) {
  athanor::RunnerConfig config;
  const auto problems = athanor::CheckRunnerConfig({{"seed", 1},
                                                    {"steps", steps},
                                                    {"log_interval", 50},
                                                    {"max_grad_norm", 1.0},
                                                    {"optim", {{"type", "adamw"}, {"lr", 3e-3}}},
                                                    {"sched", {{"type", "cosine"}, {"warmup_steps", 20}}},
                                                    {"dataloader", {{"batch_size", 16}}}},
                                                   &config);
  if (!problems.empty()) return athanor::ToStatus(problems);
  ASSIGN_OR_RETURN(auto train, athanor::ByteTextDataset::Open(file, {.block_size = kBlock, .end = 0.9}));
  ASSIGN_OR_RETURN(auto val,
                   athanor::ByteTextDataset::Open(file, {.block_size = kBlock, .stride = 4 * kBlock, .begin = 0.9}));

  athanor::SeedGenerators(1);
  Gpt model(train->vocabulary_size());
  athanor::TorchRunnerOptions options;
  options.model = model.ptr();
  options.datasets = {{"train", train}, {"val", val}};
  options.forward = [model](const athanor::Batch& batch) mutable {
    const torch::Tensor logits = model(batch.input);
    return athanor::StepOutput{torch::cross_entropy_loss(logits.flatten(0, 1), batch.target.flatten())};
  };
  ASSIGN_OR_RETURN(auto runner, athanor::TorchRunner::Create(config, std::move(options)));
  ASSIGN_OR_RETURN(const athanor::RunResult result, runner->Train());
  std::printf("%s\n----\nafter %ld steps: %.3f nats per character on held-out text\n",
              Write(model, train->vocabulary(), 300).c_str(), static_cast<long>(result.step),
              result.metrics.at("val.loss"));
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: 02_char_gpt FILE [steps]\n");
    return 2;
  }
  const absl::Status status = Run(argv[1], argc > 2 ? std::strtoll(argv[2], nullptr, 10) : 500);
  if (status.ok()) return 0;
  std::fprintf(stderr, "02_char_gpt: %s\n", std::string(status.message()).c_str());
  return 1;
}

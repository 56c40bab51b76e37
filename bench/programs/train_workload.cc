// One rank of a workload that Python's trainers run too (bench/peers/workloads.py has the same models and sizes).
// Prints a JSON line per event with its wall time: "port" (rank 0: where the others find it), "first" (the first update
// has ended), "point" (every tenth of the run), "end" with the peak memory of this process.
//
//   bench_train_workload '{"workload": "cnn", "steps": 200, "rank": 0, "world": 2}'
//   bench_train_workload '{"workload": "cnn", "steps": 200, "rank": 1, "world": 2, "port": 40123}'
//
// "runner" holds options of the run that differ: {"stack": "parallel", "fsdp": {"enabled": true}}.
#include <torch/torch.h>

#include <fstream>
#include <memory>

#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/parallel/process_group.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/torch/host_memory.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

namespace nn = torch::nn;

constexpr int64_t kVocabulary = 96, kContext = 64, kWidth = 128, kHeads = 4, kLayers = 4;

struct BlockImpl : nn::Module {
  BlockImpl() {
    norm1 = register_module("norm1", nn::LayerNorm(nn::LayerNormOptions({kWidth})));
    norm2 = register_module("norm2", nn::LayerNorm(nn::LayerNormOptions({kWidth})));
    qkv = register_module("qkv", nn::Linear(kWidth, 3 * kWidth));
    out = register_module("out", nn::Linear(kWidth, kWidth));
    up = register_module("up", nn::Linear(kWidth, 4 * kWidth));
    down = register_module("down", nn::Linear(4 * kWidth, kWidth));
  }
  torch::Tensor forward(torch::Tensor x) {
    const int64_t n = x.size(0), t = x.size(1);
    const auto parts = qkv(norm1(x)).view({n, t, 3, kHeads, kWidth / kHeads}).permute({2, 0, 3, 1, 4}).unbind(0);
    const torch::Tensor seen = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0, /*causal=*/true);
    x = x + out(seen.transpose(1, 2).reshape({n, t, kWidth}));
    return x + down(torch::gelu(up(norm2(x))));
  }
  nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  nn::Linear qkv{nullptr}, out{nullptr}, up{nullptr}, down{nullptr};
};
TORCH_MODULE(Block);

struct GptImpl : nn::Module {
  GptImpl() {
    token = register_module("token", nn::Embedding(kVocabulary, kWidth));
    position = register_module("position", nn::Embedding(kContext, kWidth));
    for (int64_t i = 0; i < kLayers; ++i) blocks->push_back(Block());
    register_module("blocks", blocks);
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({kWidth})));
    head = register_module("head", nn::Linear(kWidth, kVocabulary));
  }
  torch::Tensor forward(const torch::Tensor& tokens) {
    torch::Tensor x = token(tokens) + position(torch::arange(tokens.size(1)));
    return head(norm(blocks->forward(x))).flatten(0, 1);
  }
  nn::Embedding token{nullptr}, position{nullptr};
  nn::Sequential blocks;
  nn::LayerNorm norm{nullptr};
  nn::Linear head{nullptr};
};
TORCH_MODULE(Gpt);

nn::Sequential MakeModel(const std::string& workload) {
  if (workload == "digits")
    return nn::Sequential(nn::Linear(64, 256), nn::ReLU(), nn::Linear(256, 256), nn::ReLU(), nn::Linear(256, 10));
  if (workload == "cnn") {
    const auto conv = [](int64_t in, int64_t out) { return nn::Conv2d(nn::Conv2dOptions(in, out, 3).padding(1)); };
    return nn::Sequential(conv(1, 32), nn::ReLU(), conv(32, 64), nn::ReLU(), nn::MaxPool2d(2), conv(64, 64), nn::ReLU(),
                          nn::MaxPool2d(2), nn::Flatten(), nn::Linear(3136, 128), nn::ReLU(), nn::Linear(128, 10));
  }
  if (workload == "gpt") return nn::Sequential(Gpt());
  return nn::Sequential(nn::Linear(512, 3040), nn::ReLU(), nn::Linear(3040, 3040), nn::ReLU(), nn::Linear(3040, 3040),
                        nn::ReLU(), nn::Linear(3040, 10));
}

std::shared_ptr<Dataset> MakeData(const std::string& workload, int64_t batches, int64_t batch_size) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  const int64_t samples = batches * batch_size;
  if (workload == "gpt") {
    const torch::Tensor text = torch::randint(0, kVocabulary, {samples, kContext + 1}, generator, torch::kInt64);
    return *TensorDataset::Make(text.slice(1, 0, kContext).contiguous(), text.slice(1, 1).contiguous());
  }
  std::vector<int64_t> shape = {samples, workload == "digits" ? 64 : 512};
  if (workload == "cnn") shape = {samples, 1, 28, 28};
  return *TensorDataset::Make(torch::randn(shape, generator),
                              torch::randint(0, 10, {samples}, generator, torch::kInt64));
}

double WallTime() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double PeakMegabytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    double kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes / 1024;
  }
  return 0;
}

class Events : public RunnerHooks {
 public:
  explicit Events(int64_t steps) : every_(std::max<int64_t>(steps / 10, 1)) {}
  void OnProgress(const ProgressReport& progress) override {
    if (progress.step == seen_ || progress.phase != RunnerPhase::kTraining) return;
    seen_ = progress.step;
    if (seen_ == 1) Say({{"event", "first"}});
    if (seen_ > 0 && seen_ % every_ == 0) Say({{"event", "point"}, {"step", seen_}});
  }
  static void Say(nlohmann::json event) {
    event["time"] = WallTime();
    std::printf("%s\n", event.dump().c_str());
    std::fflush(stdout);
  }

 private:
  const int64_t every_;
  int64_t seen_ = -1;
};

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  const std::string workload = settings["workload"];
  const int64_t steps = settings["steps"], batch = settings["batch_size"];
  const int rank = settings["rank"], world = settings["world"];
  int port = settings["port"];
  nlohmann::json options_of_run = {{"seed", 7},
                                   {"steps", steps},
                                   {"threads", 1},
                                   {"optim", {{"type", "adamw"}, {"lr", 1e-3}}},
                                   {"log_interval", steps},
                                   {"dataloader", {{"batch_size", batch}}}};
  options_of_run.merge_patch(settings["runner"]);
  RunnerConfig config;
  RETURN_IF_ERROR(ToStatus(CheckRunnerConfig(options_of_run, &config)));
  KeepHostMemory();  // as the trainer does
  SeedGenerators(7);
  std::unique_ptr<HostStore> store;
  if (rank == 0 && world > 1) {
    ASSIGN_OR_RETURN(store, HostStore::Create({}));
    port = store->port();
    Events::Say({{"event", "port"}, {"port", port}});
  }
  std::unique_ptr<ProcessGroup> group;
  if (world > 1) {
    ASSIGN_OR_RETURN(
        group,
        ProcessGroup::Create(
            {.rank = rank, .world_size = world, .store_port = port, .prefix = "bench", .hosted_store = store.get()}));
  }
  nn::Sequential model = MakeModel(workload);
  Events events(steps);
  TorchRunnerOptions options;
  options.model = model.ptr();
  options.datasets = {{"train", MakeData(workload, 64, batch)}};
  options.forward = [model](const Batch& one) mutable {
    return StepOutput{torch::cross_entropy_loss(model->forward(one.input), one.target.flatten()), {}};
  };
  options.members = group.get();
  options.hooks = &events;
  ASSIGN_OR_RETURN(const auto runner, TorchRunner::Create(config, std::move(options)));
  ASSIGN_OR_RETURN(const RunResult result, runner->Train());
  return nlohmann::json{
      {"event", "end"}, {"step", result.step}, {"rank", rank}, {"peak_mb", PeakMegabytes()}, {"time", WallTime()}};
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(argc, argv,
                              {{"workload", "digits"},
                               {"steps", 100},
                               {"batch_size", 32},
                               {"rank", 0},
                               {"world", 1},
                               {"port", 0},
                               {"runner", nlohmann::json::object()}},
                              athanor::bench::Run);
}

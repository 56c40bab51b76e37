// What library_test.py drives: the library alone, as a C++ program of a user would.
//
//   library_tool dump FILE            names, dtypes, shapes and sums of the tensors of FILE, as JSON
//   library_tool convert FROM TO      Load() and Save() of tensors, by the files' endings
//   library_tool export FROM TO       ExportWeights()
//   library_tool train CONFIG_JSON    trains a small network in its workspace; prints a JSON summary
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>

#include "absl/time/clock.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/runner/pretrained.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/tools/load_save.h"

namespace {

int Dump(const std::string& path) {
  const auto weights = athanor::ReadWeights(path);
  if (!weights.ok()) {
    std::fprintf(stderr, "%s\n", weights.status().ToString().c_str());
    return 1;
  }
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [name, tensor] : *weights) {
    std::ostringstream dtype;
    dtype << tensor.dtype();
    out[name] = {{"dtype", dtype.str()},
                 {"shape", tensor.sizes().vec()},
                 {"sum", tensor.to(torch::kDouble).sum().item<double>()}};
  }
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

absl::Status Convert(const std::string& from, const std::string& to) {
  absl::StatusOr<athanor::Loaded> loaded = athanor::Load(from);
  if (!loaded.ok()) return loaded.status();
  const auto* tensors = std::get_if<athanor::Tensors>(&*loaded);
  if (tensors == nullptr) return absl::InvalidArgumentError(from + " holds no tensors by name");
  return athanor::Save(to, *tensors);
}

std::shared_ptr<athanor::Dataset> Points(int64_t samples, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const torch::Tensor input = torch::randn({samples, 4}, generator);
  return *athanor::TensorDataset::Make(input, (input.sum(1) > 0).to(torch::kLong));
}

absl::Status Train(const std::string& text) {
  athanor::RunnerConfig config;
  const auto problems = athanor::CheckRunnerConfig(nlohmann::json::parse(text), &config);
  if (!problems.empty()) return athanor::ToStatus(problems);
  torch::set_num_threads(1);
  athanor::SeedGenerators(1);
  torch::nn::Sequential net(torch::nn::Linear(4, 8), torch::nn::Tanh(), torch::nn::Linear(8, 2));
  const auto workspace = athanor::ResolveWorkspace(config, absl::Now());
  if (!workspace.ok()) return workspace.status();
  athanor::TorchRunnerOptions options;
  options.workspace = *workspace;
  options.model = net.ptr();
  options.datasets = {{"train", Points(256, 1)}, {"val", Points(64, 2)}};
  options.forward = [net](const athanor::Batch& batch) mutable {
    const torch::Tensor logits = net->forward(batch.input);
    return athanor::StepOutput{torch::nn::functional::cross_entropy(logits, batch.target),
                               {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
  };
  auto runner = athanor::TorchRunner::Create(config, std::move(options));
  if (!runner.ok()) return runner.status();
  const auto result = (*runner)->Train();
  if (!result.ok()) return result.status();
  std::printf("%s\n", nlohmann::json({{"dir", workspace->dir},
                                      {"step", result->step},
                                      {"resumed_from", (*runner)->progress().resumed_from_step},
                                      {"metrics", result->metrics},
                                      {"notes", result->notes}})
                          .dump()
                          .c_str());
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string first = argc == 4 ? argv[1] : "";
  if (first == "convert" || first == "export") {
    const absl::Status status =
        first == "convert" ? Convert(argv[2], argv[3]) : athanor::ExportWeights(argv[2], argv[3]);
    std::fprintf(status.ok() ? stdout : stderr, "%s\n", status.ok() ? "{}" : status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  const std::string verb = argc == 3 ? argv[1] : "";
  if (verb == "dump") return Dump(argv[2]);
  if (verb != "train") {
    std::fprintf(stderr, "usage: library_tool dump FILE | convert FROM TO | export FROM TO | train CONFIG_JSON\n");
    return 2;
  }
  const absl::Status status = Train(argv[2]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

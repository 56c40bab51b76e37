// What library_test.py drives: the library alone, as a C++ program of a user would.
//
//   library_tool dump FILE            names, dtypes, shapes and sums of the tensors of FILE, as JSON
//   library_tool read FILE...         what the reader of the file's ending gives: {FILE: {"tensors": {NAME: {"dtype",
//                                     "shape", "bytes"}}, …}}, or {FILE: {"error"}}
//   library_tool folder FOLDER        the classes and files of an ImageFolder, or {"error"}
//   library_tool convert FROM TO      Load() and Save() of tensors, by the files' endings
//   library_tool export FROM TO [DTYPE]    ExportWeights()
//   library_tool train CONFIG_JSON    trains a small network in its workspace; prints a JSON summary
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>

#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/formats/json_lines.h"
#include "athanor/data/formats/npy.h"
#include "athanor/data/images/codec.h"
#include "athanor/data/images/image_folder.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/runner/state/pretrained.h"
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

using nlohmann::json;

json Described(const torch::Tensor& tensor) {
  constexpr char kDigits[] = "0123456789abcdef";
  const torch::Tensor dense = athanor::DenseOnHost(tensor);
  const auto* bytes = static_cast<const uint8_t*>(dense.data_ptr());
  std::string hex;
  for (size_t i = 0; i < dense.nbytes(); ++i) hex += {kDigits[bytes[i] >> 4], kDigits[bytes[i] & 15]};
  return {{"dtype", c10::toString(tensor.scalar_type())}, {"shape", tensor.sizes().vec()}, {"bytes", hex}};
}

absl::StatusOr<json> ReadAny(const std::string& path) {
  const std::string ending = std::filesystem::path(path).extension().string();
  json tensors = json::object(), found = json::object();
  if (ending == ".npy") {
    ASSIGN_OR_RETURN(const torch::Tensor array, athanor::ReadNpy(path));
    tensors["array"] = Described(array);
  } else if (ending == ".csv") {
    const bool header = path.find("header") != std::string::npos;
    ASSIGN_OR_RETURN(const athanor::CsvTable table, athanor::ReadCsv(path, {.header = header}));
    tensors = {{"features", Described(table.features)}, {"target", Described(table.target)}};
    found["columns"] = table.columns;
  } else if (ending == ".jsonl") {
    ASSIGN_OR_RETURN(const athanor::JsonLinesDataset lines, athanor::OpenJsonLines(path, {}));
    tensors = {{"input", Described(lines.dataset->input())}, {"target", Described(lines.dataset->target())}};
  } else if (ending == ".pt" || ending == ".safetensors") {
    ASSIGN_OR_RETURN(const athanor::TensorFile file, athanor::ReadStateDictFile(path));
    for (const auto& [name, tensor] : file.tensors) tensors[name] = Described(tensor);
    found["skipped"] = file.skipped;
    found["metadata"] = file.metadata;
  } else {
    ASSIGN_OR_RETURN(const torch::Tensor image, athanor::ReadImage(path));
    tensors["image"] = Described(image);
  }
  found["tensors"] = tensors;
  return found;
}

int Read(int count, char** paths) {
  json all = json::object();
  for (int i = 0; i < count; ++i) {
    const absl::StatusOr<json> found = ReadAny(paths[i]);
    all[paths[i]] = found.ok() ? *found : json{{"error", std::string(found.status().message())}};
  }
  std::printf("%s\n", all.dump().c_str());
  return 0;
}

int Folder(const std::string& path) {
  json found;
  if (const auto folder = athanor::ImageFolder::Open(path, {}); folder.ok()) {
    found = {{"classes", (*folder)->classes()}, {"left_out", (*folder)->left_out()}, {"files", json::array()}};
    for (int64_t i = 0; i < (*folder)->size(); ++i) found["files"].push_back((*folder)->path(i));
  } else {
    found["error"] = std::string(folder.status().message());
  }
  std::printf("%s\n", found.dump().c_str());
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
  const std::string first = argc >= 4 ? argv[1] : "";
  if ((first == "convert" && argc == 4) || (first == "export" && argc <= 5)) {
    const absl::Status status = first == "convert"
                                    ? Convert(argv[2], argv[3])
                                    : athanor::ExportWeights(argv[2], argv[3], {.dtype = argc == 5 ? argv[4] : ""});
    std::fprintf(status.ok() ? stdout : stderr, "%s\n", status.ok() ? "{}" : status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  if (argc > 2 && std::string(argv[1]) == "read") return Read(argc - 2, argv + 2);
  const std::string verb = argc == 3 ? argv[1] : "";
  if (verb == "dump") return Dump(argv[2]);
  if (verb == "folder") return Folder(argv[2]);
  if (verb != "train") {
    std::fprintf(
        stderr,
        "usage: library_tool dump FILE | read FILE... | folder FOLDER | convert FROM TO | export FROM TO [DTYPE] | "
        "train CONFIG_JSON\n");
    return 2;
  }
  const absl::Status status = Train(argv[2]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

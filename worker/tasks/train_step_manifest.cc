// train_step.json, and whether what it describes is there, whole, and fit for this machine.
#include <sys/stat.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/base/status_macros.h"
#include "worker/tasks/train_step_package.h"

namespace athanor {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;
constexpr char kManifest[] = "train_step.json";
constexpr char kAgain[] = "export it again with scripts/export_train_step.py";

std::string About(const std::string& path, const std::string& what) {
  return absl::StrCat("task.options.package: ", path, what);
}

torch::ScalarType Dtype(const std::string& name) {
  static const std::map<std::string, torch::ScalarType> known = {
      {"float32", torch::kFloat32},   {"float64", torch::kFloat64}, {"float16", torch::kFloat16},
      {"bfloat16", torch::kBFloat16}, {"int64", torch::kInt64},     {"int32", torch::kInt32},
      {"int16", torch::kInt16},       {"int8", torch::kInt8},       {"uint8", torch::kUInt8},
      {"bool", torch::kBool}};
  const auto found = known.find(name);
  if (found == known.end()) throw std::invalid_argument(absl::StrCat("unknown dtype \"", name, "\""));
  return found->second;
}

std::vector<int64_t> Shape(const json& value) {
  const auto shape = value.get<std::vector<int64_t>>();
  for (const int64_t size : shape) {
    if (size < 0) throw std::invalid_argument("a negative size");
  }
  return shape;
}

// Names become paths of modules, and files stay inside the folder.
std::string Name(const std::string& name) {
  for (const absl::string_view part : absl::StrSplit(name, '.')) {
    if (part.empty()) throw std::invalid_argument(absl::StrCat("the name \"", name, "\""));
  }
  return name;
}

std::string FilePath(const std::string& path) {
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty() || part == "..") throw std::invalid_argument(absl::StrCat("the file \"", path, "\""));
  }
  return path;
}

TrainStepSample Sample(const json& value) {
  return {.shape = Shape(value.at("shape")), .dtype = Dtype(value.at("dtype"))};
}

std::map<std::string, TrainStepSample> Samples(const json& list) {
  std::map<std::string, TrainStepSample> samples;
  for (const json& value : list) {
    const std::string name = Name(value.at("name"));
    if (!samples.emplace(name, Sample(value)).second)
      throw std::invalid_argument(absl::StrCat("two inputs \"", name, "\""));
  }
  return samples;
}

std::vector<TrainStepTensor> Tensors(const json& list) {
  std::vector<TrainStepTensor> tensors;
  for (const json& value : list) {
    std::vector<std::string> also;
    for (const json& name : value.value("also", json::array())) also.push_back(Name(name));
    tensors.push_back({.name = Name(value.at("name")),
                       .also = std::move(also),
                       .shape = Shape(value.at("shape")),
                       .dtype = Dtype(value.at("dtype")),
                       .trainable = value.value("trainable", false),
                       .persistent = value.value("persistent", false),
                       .updated = value.value("updated", false)});
  }
  return tensors;
}

TrainStepManifest Manifest(const json& document) {
  TrainStepManifest manifest;
  manifest.torch_version = document.at("torch");
  manifest.cpu_flags = document.at("cpu_flags").get<std::vector<std::string>>();
  manifest.precision = document.at("precision");
  manifest.input = Sample(document.at("input"));
  manifest.more = Samples(document.value("more", json::array()));
  manifest.target = Sample(document.at("target"));
  manifest.classes = document.at("classes");
  manifest.metrics = document.at("metrics").get<std::vector<std::string>>();
  manifest.parameters = Tensors(document.at("parameters"));
  manifest.buffers = Tensors(document.at("buffers"));
  for (const auto& [path, file] : document.at("files").items()) {
    manifest.files.push_back({.path = FilePath(path), .size = file.at("size"), .crc32 = file.at("crc32")});
  }
  return manifest;
}

absl::Status CheckFile(const std::string& folder, const TrainStepFile& file) {
  const std::string path = absl::StrCat(folder, "/", file.path);
  struct stat info;
  std::ifstream stream(path, std::ios::binary);
  if (!stream || stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::NotFoundError(About(path, absl::StrCat(" cannot be read: ", strerror(errno))));
  }
  if ((info.st_mode & S_IWOTH) != 0) {
    return absl::InvalidArgumentError(About(path, " can be written by everyone; chmod o-w it"));
  }
  uLong crc = 0;
  uint64_t size = 0;
  std::vector<char> block(1 << 20);
  while (stream.read(block.data(), static_cast<std::streamsize>(block.size())) || stream.gcount() > 0) {
    crc = crc32(crc, reinterpret_cast<const Bytef*>(block.data()), static_cast<uInt>(stream.gcount()));
    size += static_cast<uint64_t>(stream.gcount());
  }
  if (size == file.size && crc == file.crc32) return absl::OkStatus();
  return absl::DataLossError(About(path, absl::StrCat(" is damaged: ", size, " bytes with checksum ", crc, ", not ",
                                                      file.size, " with ", file.crc32, "; copy or export it again")));
}

// Empty when the system does not tell.
std::set<std::string> CpuFlags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, "flags") && !absl::StartsWith(line, "Features")) continue;
    return absl::StrSplit(line.substr(line.find(':') + 1), ' ', absl::SkipWhitespace());
  }
  return {};
}

}  // namespace

absl::StatusOr<TrainStepManifest> ReadTrainStepManifest(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) {
    return absl::NotFoundError(About(folder, " cannot be read: no such folder"));
  }
  const std::string path = absl::StrCat(folder, "/", kManifest);
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::InvalidArgumentError(
        About(folder, absl::StrCat(" is no train-step package (no ", kManifest,
                                   " in it); write one with scripts/export_train_step.py")));
  }
  std::stringstream text;
  text << file.rdbuf();
  try {
    const json document = json::parse(text.str());
    if (const int format = document.at("format"); format != kFormat) {
      return absl::InvalidArgumentError(
          About(path, absl::StrCat(": found format ", format, "; allowed: ", kFormat, "; ", kAgain)));
    }
    TrainStepManifest manifest = Manifest(document);
    manifest.folder = folder;
    return manifest;
  } catch (const std::exception& problem) {
    return absl::DataLossError(About(path, absl::StrCat(" is damaged: ", problem.what(), "; ", kAgain)));
  }
}

absl::Status CheckTrainStepFiles(const TrainStepManifest& manifest) {
  for (const TrainStepFile& file : manifest.files) RETURN_IF_ERROR(CheckFile(manifest.folder, file));
  return absl::OkStatus();
}

absl::Status CheckTrainStepPackage(const TrainStepManifest& manifest) {
  if (manifest.torch_version != TORCH_VERSION) {
    return absl::InvalidArgumentError(
        About(manifest.folder, absl::StrCat(": found torch ", manifest.torch_version, "; allowed: ", TORCH_VERSION,
                                            ", which this program has; ", kAgain, " under it")));
  }
  const std::set<std::string> own = CpuFlags();
  std::vector<std::string> missing;
  for (const std::string& flag : manifest.cpu_flags) {
    if (!own.empty() && own.count(flag) == 0) missing.push_back(flag);
  }
  if (!missing.empty()) {
    return absl::InvalidArgumentError(About(
        manifest.folder, absl::StrCat(": needs CPU features that this machine has not: ", absl::StrJoin(missing, " "),
                                      "; ", kAgain, " on such a machine")));
  }
  return CheckTrainStepFiles(manifest);
}

}  // namespace athanor

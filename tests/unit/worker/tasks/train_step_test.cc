// What a train_step package must be like, told before any of its code is loaded. Whole packages are trained by
// tests/e2e/tasks_test.py.
#include <torch/version.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "athanor/task/task.h"
#include "athanor/task/task_options.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace athanor {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kDigits = ATHANOR_SOURCE_DIR "/examples/data/digits/digits.csv";

absl::Status SetUpTask(const std::string& name, const json& options) {
  absl::StatusOr<std::unique_ptr<Task>> task = MakeTask(name);
  return task.ok() ? (*task)->Setup({.options = options}) : task.status();
}

TEST(TrainStepTask, TrainStepRefusesAnotherPrecisionAtItsStart) {
  const json options = {{"data", "x.csv"}, {"package", "p"}};
  for (const char* precision : {"bf16", "fp16", "fp8"}) {
    const absl::Status refused = (*MakeTask("train_step"))->Setup({.options = options, .precision = precision});
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr("runner.precision: found \"" + std::string(precision) + "\" with task train_step"));
  }
  TaskOptionsProbe probe;
  for (const char* precision : {"", "fp32"})
    EXPECT_TRUE(
        TaskOptionsProbe::Stopped((*MakeTask("train_step"))->Setup({.options = options, .precision = precision})));
}

TEST(TrainStepTask, TrainStepPackagesThatDoNotFitAreRefused) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("athanor-package-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const json good = {{"format", 1},
                     {"torch", TORCH_VERSION},
                     {"cpu_flags", json::array()},
                     {"precision", "fp32"},
                     {"input", {{"shape", {64}}, {"dtype", "float32"}}},
                     {"target", {{"shape", json::array()}, {"dtype", "int64"}}},
                     {"classes", 10},
                     {"metrics", json::array()},
                     {"parameters", {{{"name", "w"}, {"shape", {1}}, {"dtype", "float32"}, {"trainable", true}}}},
                     {"buffers", json::array()},
                     {"files", {{"weights.safetensors", {{"size", 3}, {"crc32", 891568578}}}}}};
  auto refused = [&](const std::string& key, const json& value, absl::StatusCode code, const std::string& message) {
    json manifest = good;
    manifest[key] = value;
    std::ofstream(folder / "train_step.json") << manifest;
    const absl::Status status = SetUpTask("train_step", {{"data", kDigits}, {"package", folder.string()}});
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  using absl::StatusCode;
  refused("format", 2, StatusCode::kInvalidArgument, "found format 2; allowed: 1");
  refused("torch", "1.0.0", StatusCode::kInvalidArgument, "found torch 1.0.0; allowed: " TORCH_VERSION);
  refused("cpu_flags", json::array({"warp9"}), StatusCode::kInvalidArgument,
          "needs CPU features that this machine has not: warp9");
  refused("classes", "ten", StatusCode::kDataLoss, "train_step.json is damaged");
  refused("files", {{"../w", {{"size", 1}, {"crc32", 1}}}}, StatusCode::kDataLoss, "the file \"../w\"");
  refused("format", 1, StatusCode::kNotFound, "weights.safetensors cannot be read");
  std::ofstream(folder / "weights.safetensors") << "abd";
  refused("format", 1, StatusCode::kDataLoss, "weights.safetensors is damaged");
  std::ofstream(folder / "weights.safetensors") << "abc";
  refused("format", 1, StatusCode::kDataLoss, "weights.safetensors");  // the checksum is right, the content is not
  std::filesystem::remove_all(folder);
}

// What a package's model takes decides which files a job must name.
TEST(TrainStepTask, FurtherInputsOfATrainStepAreAskedForByName) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("athanor-inputs-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const json sample = {{"shape", {4}}, {"dtype", "float32"}};
  json manifest = {{"format", 1},
                   {"torch", TORCH_VERSION},
                   {"cpu_flags", json::array()},
                   {"precision", "fp32"},
                   {"input", {{"shape", {4}}, {"dtype", "int64"}}},
                   {"target", sample},
                   {"more", {{{"name", "mask"}, {"shape", {4}}, {"dtype", "bool"}}}},
                   {"classes", 0},
                   {"metrics", json::array()},
                   {"parameters", json::array()},
                   {"buffers", json::array()},
                   {"files", json::object()}};
  const auto refused = [&](const json& more, const std::string& message) {
    std::ofstream(folder / "train_step.json") << manifest;
    json options = {{"data", "x.npy"}, {"target_file", "y.npy"}, {"package", folder.string()}};
    options.merge_patch(more);
    EXPECT_THAT(std::string(SetUpTask("train_step", options).message()), HasSubstr(message));
  };
  refused(json::object(), "task.options.input_files: missing: mask; the package takes: mask");
  refused({{"input_files", {{"musk", "m.npy"}, {"mask", "m.npy"}}}},
          "task.options.input_files.musk: the package takes no such input; allowed: mask");
  refused({{"input_files", {{"mask", "m.npy"}}}, {"scale", 2}}, "task.options.scale: belongs to packages");
  manifest["more"].push_back(manifest["more"][0]);
  refused(json::object(), "two inputs \"mask\"");
  manifest.erase("more");
  refused({{"input_files", {{"mask", "m.npy"}}}}, "the package takes no such input; allowed: none");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace athanor

// Every built-in task learns through TorchRunner, and refuses what it cannot use.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "athanor/config/config_loader.h"
#include "athanor/data/formats/npy.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/task/task.h"
#include "athanor/task/task_options.h"
#include "worker/tasks/task_options_markdown.h"

namespace athanor {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

const std::string kDigits = ATHANOR_SOURCE_DIR "/examples/data/digits/digits.csv";

absl::Status SetUpTask(const std::string& name, const json& options) {
  absl::StatusOr<std::unique_ptr<Task>> task = MakeTask(name);
  return task.ok() ? (*task)->Setup({.options = options}) : task.status();
}

std::map<std::string, double> Train(const std::string& name, const json& options, const json& runner) {
  RunnerConfig config;
  EXPECT_EQ(ToStatus(CheckRunnerConfig(runner, &config)), absl::OkStatus());
  SeedGenerators(7);
  absl::StatusOr<std::unique_ptr<Task>> task = MakeTask(name);
  EXPECT_EQ(task.status(), absl::OkStatus());
  EXPECT_EQ((*task)->Setup({.options = options}), absl::OkStatus());
  TorchRunnerOptions run;
  run.workspace_from_config = false;
  run.model = (*task)->Model();
  run.datasets = (*task)->Datasets();
  run.forward = [&](const Batch& batch) { return (*task)->Forward(batch); };
  auto runner_or = TorchRunner::Create(config, std::move(run));
  EXPECT_EQ(runner_or.status(), absl::OkStatus());
  if (!runner_or.ok()) return {};
  absl::StatusOr<RunResult> result = (*runner_or)->Train();
  EXPECT_EQ(result.status(), absl::OkStatus());
  return result.ok() ? result->metrics : std::map<std::string, double>{};
}

class TasksTest : public testing::Test {
 protected:
  void SetUp() override { torch::set_num_threads(1); }
};

TEST_F(TasksTest, DigitsMlpReaches97Percent) {
  const auto metrics = Train("digits_mlp", {{"data", kDigits}, {"dropout", 0.2}, {"noise", 0.2}},
                             {{"seed", 7},
                              {"steps", 2000},
                              {"optim", {{"type", "adamw"}, {"lr", 0.001}, {"weight_decay", 0.05}}},
                              {"sched", {{"type", "cosine"}, {"scaling", "numerical"}, {"cooldown_steps", 0}}},
                              {"dataloader", {{"batch_size", 64}}}});
  EXPECT_GE(metrics.at("test.accuracy"), 0.97);
}

TEST_F(TasksTest, ImageResNetLearns) {
  const auto metrics = Train("image_resnet", {{"data", kDigits}, {"scale", 16}, {"width", 8}},
                             {{"seed", 7},
                              {"epochs", 4},
                              {"optim", {{"type", "adamw"}, {"lr", 0.005}}},
                              {"dataloader", {{"batch_size", 32}}}});
  EXPECT_GE(metrics.at("test.accuracy"), 0.9);
}

TEST_F(TasksTest, CharGptBeatsLetterFrequencies) {
  const auto metrics = Train("char_gpt",
                             {{"data", ATHANOR_SOURCE_DIR "/examples/data/text/pride_and_prejudice.txt"},
                              {"n_layer", 1},
                              {"n_head", 2},
                              {"n_embd", 32},
                              {"block_size", 32},
                              {"val_share", 0.02}},
                             {{"seed", 7},
                              {"steps", 150},
                              {"optim", {{"type", "adamw"}, {"lr", 0.01}}},
                              {"dataloader", {{"batch_size", 32}}}});
  EXPECT_LT(metrics.at("val.loss"), 2.8);  // letter frequencies alone: 3.06
  EXPECT_NEAR(metrics.at("val.bits_per_char"), metrics.at("val.loss") / std::log(2.0), 1e-4);
}

TEST_F(TasksTest, NamesAreUniqueAndUnknownOnesAreAnswered) {
  EXPECT_THAT(TaskNames(),
              testing::IsSupersetOf({"char_gpt", "digits_mlp", "image_resnet", "torchscript", "train_step"}));
  EXPECT_FALSE(RegisterTask("digits_mlp", [] { return nullptr; }));
  EXPECT_THAT(RefusedTaskNames(), testing::Contains("digits_mlp"));
  const absl::Status status = MakeTask("digit_mlp").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("did you mean \"digits_mlp\""), HasSubstr("char_gpt")));
}

TEST_F(TasksTest, OptionsAreRefusedByName) {
  const struct {
    std::string task;
    json options;
    std::string message;
  } kCases[] = {
      {"digits_mlp", json::object(), "task.options.data: missing; digits_mlp needs it"},
      {"digits_mlp", {{"data", kDigits}, {"dropout", 2}}, "task.options.dropout: found 2"},
      {"digits_mlp", {{"data", kDigits}, {"hiden", 3}}, "task.options.hiden: unknown key, did you mean \"hidden\""},
      {"digits_mlp", {{"data", kDigits}, {"hidden", "big"}}, "task.options.hidden: found \"big\""},
      {"digits_mlp", {{"data", "x.txt"}}, "allowed: a .csv or .npy file"},
      {"digits_mlp", {{"data", kDigits}, {"block_size", 16}}, "task.options.block_size: unknown key"},
      {"digits_mlp", {{"data", kDigits}, {"noise", -0.5}}, "found -0.5 (number); allowed: number from 0 to 100"},
      {"image_resnet", {{"data", kDigits}, {"input_files", {{"m", "m.npy"}}}}, "input_files: unknown key"},
      {"digits_mlp", {{"data", kDigits}, {"inputs", 63}}, "holds 64 numbers a sample"},
      {"image_resnet", {{"data", kDigits}, {"image", {8, 8}}}, "[channels, height, width]"},
      {"image_resnet", {{"data", kDigits}, {"width", 12}}, "a multiple of 8"},
      {"char_gpt", {{"data", "t.txt"}, {"n_head", 3}}, "a multiple of n_head"},
      {"torchscript", {{"data", kDigits}, {"module", "m.pt"}}, "task.options.classes: missing"},
      {"torchscript", {{"data", kDigits}, {"module", kDigits}, {"classes", 10}}, "is not a TorchScript file"},
      {"train_step", {{"data", kDigits}}, "task.options.package: missing; train_step needs it"},
      {"train_step", {{"data", kDigits}, {"package", kDigits}}, "is no train-step package (no train_step.json in it)"},
  };
  for (const auto& wrong : kCases) {
    const absl::Status status = SetUpTask(wrong.task, wrong.options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong.message << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(wrong.message));
  }
  EXPECT_TRUE(
      absl::IsNotFound(SetUpTask("torchscript", {{"data", kDigits}, {"module", "/nowhere/m.pt"}, {"classes", 10}})));
  EXPECT_TRUE(absl::IsNotFound(SetUpTask("train_step", {{"data", kDigits}, {"package", "/nowhere/p.train_step"}})));
  EXPECT_TRUE(absl::IsDataLoss(SetUpTask("digits_mlp", {{"data", kDigits}, {"classes", 9}})));
}

TEST_F(TasksTest, AProbeStopsBeforeAnyDataIsRead) {
  TaskOptionsProbe probe;
  const absl::Status good = SetUpTask("digits_mlp", {{"data", "/no/such/file.csv"}, {"dropout", 0.5}});
  EXPECT_TRUE(TaskOptionsProbe::Stopped(good)) << good;
  const absl::Status bad = SetUpTask("digits_mlp", {{"data", "/no/such/file.csv"}, {"droput", 0.5}, {"noise", -1}});
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.message()), AllOf(HasSubstr("task.options.droput: unknown key, did you mean \"dropout\""),
                                                HasSubstr("task.options.noise: found -1")));
  EXPECT_FALSE(TaskOptionsProbe::Stopped(bad));
}

TEST_F(TasksTest, AProbeOpensTheModulesThatAreHere) {
  TaskOptionsProbe probe;
  const json options = {{"data", "/no/such/file.csv"}, {"classes", 10}, {"module", kDigits}};
  const absl::Status text = SetUpTask("torchscript", options);
  EXPECT_EQ(text.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(text.message()), HasSubstr("task.options.module: " + kDigits + " is not a TorchScript file"));
  json elsewhere = options;
  elsewhere["module"] = "/no/such/net.pt";
  EXPECT_TRUE(TaskOptionsProbe::Stopped(SetUpTask("torchscript", elsewhere)));
  EXPECT_THAT(std::string(SetUpTask("train_step", {{"data", kDigits}, {"package", kDigits}}).message()),
              HasSubstr("is no train-step package"));
  EXPECT_TRUE(TaskOptionsProbe::Stopped(SetUpTask("train_step", {{"data", kDigits}, {"package", "/no/such/p"}})));
}

TEST_F(TasksTest, ThePageOfOptionsIsCurrentAndExplainsEveryOne) {
  EXPECT_THAT(TaskNames(), testing::ElementsAreArray(kBuiltinTasks));
  std::set<std::pair<std::string, std::string>> used;
  for (const char* task : kBuiltinTasks) {
    EXPECT_FALSE(OptionsOf(task).empty()) << task;
    for (const TaskOptionNote& note : OptionsOf(task)) {
      const bool own = OptionMeanings().contains({task, note.name});
      EXPECT_TRUE(own || OptionMeanings().contains({"", note.name})) << task << "." << note.name << " has no meaning";
      used.insert({own ? task : "", note.name});
    }
  }
  for (const auto& [key, meaning] : OptionMeanings()) EXPECT_TRUE(used.contains(key)) << key.first << "." << key.second;
  const std::string path = ATHANOR_SOURCE_DIR "/docs/task-options.md";
  if (std::getenv("ATHANOR_UPDATE_DOCS") != nullptr) std::ofstream(path) << TaskOptionsMarkdown();
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(text.str() == TaskOptionsMarkdown())
      << "run this test with ATHANOR_UPDATE_DOCS=1 to write docs/task-options.md";
}

// What Python wrote: arrays of numpy and a scripted module.
class PythonFilesTest : public TasksTest {
 protected:
  void SetUp() override {
    TasksTest::SetUp();
    folder_ = std::filesystem::temp_directory_path() / ("athanor-tasks-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  bool Python(const std::string& arguments) {
    return std::system((std::string(PYTHON) + " " + arguments + " > /dev/null").c_str()) == 0;
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

TEST_F(PythonFilesTest, TorchScriptModuleTrains) {
  ASSERT_TRUE(Python(ATHANOR_SOURCE_DIR "/examples/torchscript/export.py " + Path("m.pt")));
  const json options = {
      {"module", Path("m.pt")}, {"data", kDigits}, {"sample_shape", {1, 8, 8}}, {"scale", 16}, {"classes", 10}};
  const auto metrics = Train("torchscript", options,
                             {{"seed", 7},
                              {"epochs", 4},
                              {"optim", {{"type", "adamw"}, {"lr", 0.002}}},
                              {"dataloader", {{"batch_size", 32}}}});
  EXPECT_GE(metrics.at("test.accuracy"), 0.93);

  auto task = *MakeTask("torchscript");
  ASSERT_EQ(task->Setup({.options = options}), absl::OkStatus());
  EXPECT_TRUE(task->Model()->named_parameters().contains("features.0.weight")) << "the names are those of Python";
  task->Model()->eval();
  const Batch batch = *task->Datasets()["train"]->Get({0, 1});
  EXPECT_TRUE(task->Forward(batch).loss.equal(task->Forward(batch).loss)) << "dropout is off in eval mode";

  json wrong = options;
  wrong["sample_shape"] = {64};
  EXPECT_THAT(std::string(SetUpTask("torchscript", wrong).message()),
              HasSubstr("fails on one sample of shape [1, 64]"));
  wrong = options;
  wrong["classes"] = 11;
  EXPECT_THAT(std::string(SetUpTask("torchscript", wrong).message()), HasSubstr("needed: [1, 11]"));
}

constexpr char kScripts[] = R"(
import sys, numpy as np, torch
from typing import Dict
from torch import nn
d = sys.argv[1]
rng = np.random.default_rng(1)

class Running(nn.Module):  # assigns a buffer anew; tied weights
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4, bias=False)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("mean", torch.zeros(4))
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.b(torch.relu(self.a(x - self.mean)))

class Masked(nn.Module):  # several inputs, a loss and metrics of its own
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 1)
    def forward(self, x: torch.Tensor, mask: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        return self.f(x * mask).squeeze(1) + shift
    @torch.jit.export
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).abs().mean()
    @torch.jit.export
    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Dict[str, torch.Tensor]:
        return {"bias": (output - target).mean()}

class Square(nn.Module):
    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean()

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(8, 16)
        self.h = nn.Linear(16, 8)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.h(self.e(x))

torch.manual_seed(0)
for name, module in (("running", Running()), ("masked", Masked()), ("square", Square()), ("tokens", Tokens())):
    torch.jit.save(torch.jit.script(module), f"{d}/{name}.pt")
x = rng.standard_normal((64, 4)).astype("f4")
np.save(f"{d}/x.npy", x)
np.save(f"{d}/y.npy", (x[:, 0] - x[:, 1]).astype("f4"))
np.save(f"{d}/c.npy", (np.arange(64) % 16 == 0).astype("i8"))
np.save(f"{d}/m.npy", np.tile(np.array([1, 1, 0, 0], "f4"), (64, 1)))
np.save(f"{d}/w.npy", (np.arange(64) < 8).astype("f4"))
(np.arange(2000) % 8).astype("u2").tofile(f"{d}/train.bin")
(np.arange(200) % 8).astype("u2").tofile(f"{d}/val.bin")
)";

// What Python's models bring along, each by options of the job file alone.
class PythonModelsTest : public PythonFilesTest {
 protected:
  void SetUp() override {
    PythonFilesTest::SetUp();
    std::ofstream(folder_ / "scripts.py") << kScripts;
    ASSERT_TRUE(Python(Path("scripts.py") + " " + folder_.string()));
  }
  json Regression(const json& more) const {
    json options = {{"module", Path("masked.pt")},
                    {"data", Path("x.npy")},
                    {"target_file", Path("y.npy")},
                    {"input_files", {{"mask", Path("m.npy")}}}};
    options.merge_patch(more);
    return options;
  }
  const json runner_ = {
      {"seed", 7}, {"epochs", 30}, {"optim", {{"type", "adam"}, {"lr", 0.05}}}, {"dataloader", {{"batch_size", 16}}}};
};

TEST_F(PythonModelsTest, ABufferThatForwardAssignsAnewIsFollowed) {
  auto task = *MakeTask("torchscript");
  ASSERT_EQ(task->Setup({.options = {{"module", Path("running.pt")},
                                     {"data", Path("x.npy")},
                                     {"target_file", Path("x.npy")},
                                     {"loss", "mse"}}}),
            absl::OkStatus());
  const auto model = task->Model();
  const Batch batch = *task->Datasets()["train"]->Get({0, 1, 2});
  torch::Tensor expected = torch::zeros({4});
  for (int i = 0; i < 3; ++i) {
    task->Forward(batch);
    expected = 0.9 * expected + 0.1 * batch.input.mean(0);
  }
  EXPECT_TRUE(torch::allclose(model->named_buffers()["mean"], expected));
  // And the other way: what is loaded is what the script goes on with.
  model->named_buffers()["mean"].zero_();
  task->Forward(batch);
  EXPECT_TRUE(torch::allclose(model->named_buffers()["mean"], 0.1 * batch.input.mean(0)));
  EXPECT_TRUE(model->named_parameters()["a.weight"].is_same(model->named_parameters()["b.weight"]));
}

TEST_F(PythonModelsTest, SeveralInputsAndALossOfTheModulesOwn) {
  const auto metrics = Train("torchscript", Regression({{"loss", "module"}}), runner_);
  EXPECT_LT(metrics.at("test.loss"), 0.2);
  EXPECT_LT(std::abs(metrics.at("test.bias")), 0.2);
  EXPECT_LT(Train("torchscript", Regression({{"loss_module", Path("square.pt")}}), runner_).at("test.loss"), 0.1);
  for (const char* loss : {"l1", "huber", "mse"})
    EXPECT_LT(Train("torchscript", Regression({{"loss", loss}}), runner_).at("test.loss"), 0.3) << loss;
  const auto refused = [&](const json& more, const std::string& message) {
    EXPECT_THAT(std::string(SetUpTask("torchscript", Regression(more)).message()), HasSubstr(message));
  };
  refused({{"loss", "l1"}, {"input_files", {{"mask", nullptr}, {"musk", Path("m.npy")}}}}, "takes also mask, shift");
  refused({{"loss", "l1"}, {"input_files", nullptr}}, "missing: mask");
  refused({{"loss", "module"}, {"module", Path("tokens.pt")}, {"input_files", nullptr}}, "no method loss");
  refused({{"loss", "l1"}, {"loss_module", Path("square.pt")}}, "excludes loss_module");
  refused({{"loss", "l1"}, {"input_files", {{"mask", Path("m.csv")}}}}, "allowed: a .npy file");
}

TEST_F(PythonModelsTest, FilesToValidateAndTestOn) {
  const json files = {{"loss", "l1"},
                      {"val_data", Path("x.npy")},
                      {"val_target_file", Path("y.npy")},
                      {"val_input_files", {{"mask", Path("m.npy")}}}};
  auto task = *MakeTask("torchscript");
  ASSERT_EQ(task->Setup({.options = Regression(files)}), absl::OkStatus());
  EXPECT_EQ(task->Datasets().count("test"), 0u);
  EXPECT_EQ(task->Datasets()["val"]->size(), 64);
  EXPECT_EQ(task->Datasets()["train"]->size(), 64);
  EXPECT_LT(Train("torchscript", Regression(files), runner_).at("val.loss"), 0.3);
  json wrong = files;
  wrong.erase("val_input_files");
  EXPECT_THAT(std::string(SetUpTask("torchscript", Regression(wrong)).message()), HasSubstr("val_input_files"));
}

TEST_F(PythonModelsTest, TokenFiles) {
  const json options = {{"module", Path("tokens.pt")},
                        {"data", Path("train.bin")},
                        {"val_data", Path("val.bin")},
                        {"block_size", 16},
                        {"classes", 8}};
  const auto metrics = Train("torchscript", options, runner_);
  EXPECT_GT(metrics.at("val.accuracy"), 0.99);
  json wrong = options;
  wrong["classes"] = 4;
  EXPECT_FALSE(SetUpTask("torchscript", wrong).ok());
  EXPECT_THAT(std::string(SetUpTask("digits_mlp", {{"data", Path("train.bin")}}).message()),
              HasSubstr("allowed: a .csv or .npy file"));
}

TEST_F(PythonModelsTest, SamplesAreDrawnByWeight) {
  const json table = {
      {"data", Path("x.npy")}, {"target_file", Path("c.npy")}, {"inputs", 4}, {"classes", 2}, {"test_every", 0}};
  const auto labels = [&](const json& more, int64_t epoch) {
    json options = table;
    options.merge_patch(more);
    auto task = *MakeTask("digits_mlp");
    EXPECT_EQ(task->Setup({.options = options}), absl::OkStatus());
    const auto train = task->Datasets()["train"];
    std::vector<int64_t> all(static_cast<size_t>(train->size()));
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
    return train->GetInEpoch(all, epoch)->target;
  };
  const json balanced = {{"balance_classes", true}, {"samples_per_epoch", 4000}};
  EXPECT_NEAR(labels(balanced, 0).to(torch::kFloat64).mean().item<double>(), 0.5, 0.05);
  EXPECT_TRUE(torch::equal(labels(balanced, 3), labels(balanced, 3)));
  EXPECT_FALSE(torch::equal(labels(balanced, 3), labels(balanced, 4)));
  const torch::Tensor few = labels({{"sample_weights_file", Path("w.npy")}}, 0);
  EXPECT_EQ(few.size(0), 64);
  EXPECT_THAT(
      std::string(SetUpTask("digits_mlp", {{"data", kDigits}, {"sample_weights_file", Path("w.npy")}}).message()),
      HasSubstr("one number each"));
}

TEST_F(PythonFilesTest, NumpyArrays) {
  std::ofstream(folder_ / "save.py")
      << "import numpy as np, sys\nd = sys.argv[1]\n"
         "x = np.arange(24).reshape(6, 4)\n"
         "for t in ['f4', 'f8', 'i8', 'u1']: np.save(f'{d}/x_{t}.npy', x.astype(t))\n"
         "np.save(f'{d}/f.npy', np.asfortranarray(x))\nnp.save(f'{d}/y.npy', np.arange(6) % 2)\n"
         "for t in ['f4', 'u8', 'bool']: np.save(f'{d}/y_{t}.npy', (np.arange(6) % 2).astype(t))\n"
         "for n, v in [('soft', .7), ('nan', np.nan), ('huge', 1e30)]: np.save(f'{d}/y_{n}.npy', np.array([0, v, 1, 0, "
         "1, 0]))\n"
         "np.save(f'{d}/y_high.npy', np.array([0, 1, 2, 0, 1, 0]))\n";
  ASSERT_TRUE(Python(Path("save.py") + " " + folder_.string()));
  for (const char* type : {"f4", "f8", "i8", "u1"}) {
    absl::StatusOr<torch::Tensor> read = ReadNpy(Path("x_" + std::string(type) + ".npy"));
    ASSERT_EQ(read.status(), absl::OkStatus());
    EXPECT_TRUE(read->to(torch::kInt64).equal(torch::arange(24).reshape({6, 4}))) << type;
  }
  EXPECT_TRUE(torch::equal(*ReadNpy(Path("f.npy")), *ReadNpy(Path("x_i8.npy"))));  // Fortran order

  // Class numbers may have any type; what is no class number is not cut to one.
  const auto labels = [&](const std::string& file) {
    return SetUpTask("digits_mlp",
                     {{"data", Path("x_f8.npy")}, {"target_file", Path(file)}, {"inputs", 4}, {"classes", 2}});
  };
  for (const char* file : {"y.npy", "y_f4.npy", "y_u8.npy", "y_bool.npy"})
    EXPECT_EQ(labels(file), absl::OkStatus()) << file;
  EXPECT_THAT(std::string(labels("y_soft.npy").message()),
              AllOf(HasSubstr("y_soft.npy: sample 2 has class 0.7"), HasSubstr("allowed: 0 to 1")));
  EXPECT_THAT(std::string(labels("y_nan.npy").message()), HasSubstr("sample 2 has class nan"));
  EXPECT_THAT(std::string(labels("y_huge.npy").message()), HasSubstr("sample 2 has class 1e+30"));
  EXPECT_THAT(std::string(labels("y_high.npy").message()), HasSubstr("sample 3 has class 2; allowed: 0 to 1"));

  std::filesystem::resize_file(folder_ / "x_f4.npy", 200);
  EXPECT_TRUE(absl::IsDataLoss(ReadNpy(Path("x_f4.npy")).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadNpy(Path("none.npy")).status()));
  EXPECT_EQ(SetUpTask("digits_mlp",
                      {{"data", Path("x_f8.npy")}, {"target_file", Path("y.npy")}, {"inputs", 4}, {"classes", 2}}),
            absl::OkStatus());
}

}  // namespace
}  // namespace athanor

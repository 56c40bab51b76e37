// Which names of checkpoints exist after each of a row of saves, what lies behind them, and what the manager reports.
//
// A recorded file "best.pth" is the name "best" here; hard links have no counterpart (names are pointers). Recorded as
// defects, and set right before comparing (deviations.json names the cases): the last save takes the history name of an
// epoch that never was, which may push a real one out; a seed checkpoint takes a history name; a second name that is
// equal to the first leaves a stray temporary file; an unknown export type is found at the end of the run. Different by
// design: a step has one folder, so a last save of the model alone takes the place of the whole state of that step.
#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/runner/training_run.h"
#include "tests/oracle/replay.h"
#include "tests/oracle/trace_run.h"

namespace athanor::oracle {
namespace {

using nlohmann::json;

// What a name means.
struct Target {
  int64_t step = 0;
  int64_t epoch = 0;
  bool model_only = false;
  std::string dtype;  // of the weight
  std::string Text() const {
    return absl::StrCat("step ", step, " epoch ", epoch, model_only ? " model only " : " ", dtype);
  }
};
using Targets = std::map<std::string, Target>;

class CountingRunner : public TorchRunner {
 public:
  using TorchRunner::TorchRunner;
  void Set(const json& operation) {
    if (operation.contains("epoch")) run().state().train.epoch = operation["epoch"];
    if (operation.contains("global_step")) run().state().train.step = operation["global_step"];
  }
  void Observe(double loss) { run().evaluation().score().Observe(state().step, {{"val.loss", loss}}); }
};

absl::StatusOr<std::unique_ptr<CountingRunner>> MakeRunner(json recorded, const std::string& folder) {
  recorded["optim"] = {{"type", "sgd"}, {"lr", 0.1}};
  recorded["dir"] = folder;
  recorded["log"] = false;
  json& checkpoint = recorded["checkpoint"];
  if (checkpoint.value("interval", 1) < 0) checkpoint["interval"] = 0;
  if (!checkpoint.contains("keep_latest_k")) checkpoint["keep_latest_k"] = 0;
  RunnerConfig config;
  const absl::Status read = ToStatus(CheckRunnerConfig(recorded, &config));
  if (!read.ok()) return read;
  torch::nn::Sequential model{torch::nn::Linear(2, 1)};
  auto data = *TensorDataset::Make(torch::ones({4, 2}), torch::ones({4, 1}));
  TorchRunnerOptions options;
  options.model = model.ptr();
  options.datasets = {{"train", data}, {"val", data}};
  options.forward = [model](const Batch& batch) mutable {
    return StepOutput{torch::mse_loss(model->forward(batch.input), batch.target), {}};
  };
  auto workspace = ResolveWorkspace(config, absl::UnixEpoch());
  if (!workspace.ok()) return workspace.status();
  options.workspace = *workspace;
  return TorchRunner::Make<CountingRunner>(config, std::move(options));
}

SaveArguments ArgumentsOf(const json& operation) {
  SaveArguments arguments;
  arguments.name = operation.value("name", "latest");
  arguments.save_best = operation.value("save_best", true);
  arguments.last_step = operation.value("last_step", false);
  arguments.force = operation.value("force", false);
  if (operation.contains("epochs")) arguments.epochs = operation["epochs"].get<int64_t>() + 1;
  return arguments;
}

absl::Status Apply(const json& operation, CountingRunner* runner) {
  const std::string kind = operation.at("op");
  if (kind == "set") {
    runner->Set(operation);
    return absl::OkStatus();
  }
  if (kind == "result") {
    runner->Observe(operation.at("loss"));
    return absl::OkStatus();
  }
  const absl::Status saved =
      kind == "seed" ? runner->SaveSeedCheckpoint() : runner->SaveCheckpoint(ArgumentsOf(operation)).status();
  return saved.ok() ? runner->WaitForCheckpoints() : saved;
}

Targets Found(const std::string& root) {
  Targets found;
  for (const auto& [alias, step] : ReadAliases(root)) {
    const auto candidate = CandidateAt(absl::StrCat(root, "/", alias));
    TORCH_CHECK(candidate.ok() && candidate->step == step, alias, ": ", candidate.status().ToString());
    const auto restored = ReadCheckpoint(*candidate, 0, 1);
    TORCH_CHECK(restored.ok(), alias, ": ", restored.status().ToString());
    const json& meta = restored->state.meta;
    const bool model_only = meta.at("model_only");
    const auto dtype = restored->state.replicated.at("model.0.weight").scalar_type();
    found[alias] = {.step = meta.at("train").at("step"),
                    .epoch = meta.at("train").at("epoch"),
                    .model_only = model_only,
                    .dtype = c10::toString(dtype)};
  }
  return found;
}

// The recorded files as names. A file of the model alone holds no counters: those of the run then (`now`).
Targets Recorded(const json& files, const Target& now) {
  static const std::map<std::string, std::string> types = {{"torch.float32", "Float"},
                                                           {"torch.float64", "Double"},
                                                           {"torch.float16", "Half"},
                                                           {"torch.bfloat16", "BFloat16"}};
  Targets targets;
  for (const auto& [file, payload] : files.items()) {
    Target target = now;
    target.model_only = payload.at("keys").size() == 1;
    target.dtype = types.at(payload.at("weight_dtype"));
    if (!target.model_only) {
      target.step = payload.at("train").at("global_step");
      target.epoch = payload.at("train").at("epoch");
    }
    targets[file.substr(0, file.rfind(".pth"))] = target;
  }
  return targets;
}

// What should have been recorded after `operation`, given what should have been there before it.
void SetRight(const json& operation, const Targets& before, Targets* after) {
  const bool last = operation.value("last_step", false);
  bool phantom = false;
  for (auto one = after->begin(); one != after->end();) {
    const bool stray = absl::StrContains(one->first, ".tmp-") || one->first == "best.tmp";
    const bool fresh_history = IsHistoryName(one->first) && !before.contains(one->first);
    const bool drop = stray || (fresh_history && (operation.at("op") == "seed" || last));
    phantom = phantom || (drop && !stray);
    one = drop ? after->erase(one) : std::next(one);
  }
  for (const auto& [name, target] : before) {
    if (phantom && IsHistoryName(name)) after->insert({name, target});
  }
  for (auto& [name, target] : *after) {
    const auto latest = after->find("latest");
    if (latest != after->end() && latest->second.model_only && latest->second.step == target.step)
      target = latest->second;
  }
}

std::string CompareTargets(const Targets& expected, const Targets& found) {
  std::string text;
  std::set<std::string> names;
  for (const auto& [name, target] : expected) names.insert(name);
  for (const auto& [name, target] : found) names.insert(name);
  for (const std::string& name : names) {
    const std::string want = expected.contains(name) ? expected.at(name).Text() : "nothing";
    const std::string have = found.contains(name) ? found.at(name).Text() : "nothing";
    if (want != have) absl::StrAppend(&text, name, ": expected ", want, ", found ", have, "; ");
  }
  return text;
}

std::string CompareHealth(const json& health, const Targets& expected, int64_t epochs, const CheckpointStats& stats) {
  if (stats.failed != health.at("error_count")) return absl::StrCat("failed saves: ", stats.failed);
  std::vector<std::string> aliases;
  for (const std::string file : health.at("last_successful_aliases")) {
    std::string name = file.substr(0, file.rfind(".pth"));
    // The history name that the last save should have had.
    if (!expected.contains(name) && IsHistoryName(name)) name = EpochName(epochs);
    if (expected.contains(name) && (aliases.empty() || aliases.back() != name)) aliases.push_back(name);
  }
  if (aliases == stats.last_aliases) return "";
  return absl::StrCat("last names: expected ", json(aliases).dump(), ", found ", json(stats.last_aliases).dump());
}

std::string Replay(const json& one, bool deviates) {
  const TraceFolder folder;
  auto runner = MakeRunner(one.at("config"), folder.path());
  if (!runner.ok()) {
    const bool refused = deviates && absl::StrContains(runner.status().message(), "export_dtype");
    return refused ? "" : runner.status().ToString();
  }
  Targets before;
  for (const json& step : one.at("operations")) {
    const json& operation = step.at("op");
    const absl::Status applied = Apply(operation, runner->get());
    if (!applied.ok()) return absl::StrCat(operation.dump(), ": ", applied.ToString());
    const TrainState& state = (*runner)->state();
    Targets expected = Recorded(step.at("files"), {.step = state.step, .epoch = state.epoch, .dtype = ""});
    if (deviates) SetRight(operation, before, &expected);
    const std::string text = CompareTargets(expected, Found(absl::StrCat(folder.path(), "/checkpoints")));
    if (!text.empty()) return absl::StrCat(operation.dump(), ": ", text);
    const std::string health = CompareHealth(step.at("health"), expected, state.epoch, (*runner)->checkpoint_stats());
    if (!health.empty()) return absl::StrCat(operation.dump(), ": ", health);
    before = std::move(expected);
  }
  return "";
}

void ReplayAll(const json& file, Report& report) {
  for (const json& one : file.at("cases")) {
    const std::string name = one.at("name");
    report.Case(name, [&] { return Replay(one, !report.deviation(name).empty()); });
  }
}

ATHANOR_ORACLE_FAMILY(runner_checkpoint_files, ReplayAll);

}  // namespace
}  // namespace athanor::oracle

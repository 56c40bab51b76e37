// Whole trainings through TorchRunner, micro-batch by micro-batch: loss, learning rates, weights, counters, evaluation,
// checkpoints and derived intervals.
//
// Recorded as a defect, and checked otherwise here:
//  - a micro-batch without any target that counts: recorded as an error, or as a window whose mean is too small. Here
//    it has weight 0; the rest of the trace is checked against plain LibTorch code;
//  - a run that ends with an error because the last evaluation asks for more batches than there are: it succeeds;
//  - a schedule stepped by epoch whose length nobody gave: recorded with as many epochs as the run has updates. Here it
//    is as long as the run; the case is replayed with the recorded length given;
//  - step mode evaluates the first few batches only: here the whole split;
//  - the phantom checkpoint of an epoch that never was, and the checkpoint of a state whose loss was not finite.
#include <cmath>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "athanor/config/derived_options.h"
#include "tests/oracle/replay.h"
#include "tests/oracle/trace_run.h"

namespace athanor::oracle {
namespace {

using nlohmann::json;

constexpr double kTolerance = 1e-10;

std::string At(const char* what, size_t step) {
  return std::string(what) + " of micro-step " + std::to_string(step);
}

std::string CompareList(const json& expected, const std::vector<double>& found, const std::string& what) {
  if (expected.size() != found.size()) return what + ": another number of groups";
  for (size_t i = 0; i < found.size(); ++i) {
    const double want = Number(expected[i]);
    if (std::abs(want - found[i]) > kTolerance * std::abs(want)) return Compare(want, found[i], 0, what);
  }
  return "";
}

constexpr char kEpochLength[] = "rule: the length of a schedule that is stepped by epoch";

// Whether the recorder takes the run's updates for the length of a schedule that it steps once a pass.
bool TakesUpdatesForEpochs(const json& config) {
  const json sched = config.value("sched", json::object());
  if (!sched.is_object() || sched.contains("total_steps")) return false;
  const std::string type = absl::AsciiStrToLower(sched.value("type", "")), interval = sched.value("interval", "");
  const bool has_length = type == "linear" || type == "cosine" || type == "constant" || type == "one_cycle";
  const std::set<std::string> by_epoch = {"epoch", "epochs", "eval", "evaluation", "validation"};
  return has_length && by_epoch.contains(absl::AsciiStrToLower(interval));
}

TraceSpec SpecOf(const json& file, const json& test) {
  const bool classes = test.value("classification", false);
  const char* kind = classes ? "classification" : "regression";
  TraceSpec spec;
  spec.config = test.at("config");
  if (TakesUpdatesForEpochs(spec.config))  // said, it is a length like any other
    spec.config["sched"]["total_steps"] = test.at("expected").at("derived_steps");
  spec.weights = file.at("initial_weights").at(kind);
  spec.criterion = test.at("criterion").get<std::string>();
  for (const auto& [split, name] : test.at("splits").items()) {
    const auto ignored = test.value("ignore_rows", json::object()).value(split, std::vector<int64_t>());
    spec.splits[split] = MakeTraceData(file.at("data").at(kind).at(name.get<std::string>()), classes, ignored);
  }
  spec.poisoned = test.value("poison_loss_at_micro_steps", std::vector<int64_t>());
  spec.poison = test.value("poison_kind", "nan") == "inf" ? HUGE_VAL : std::nan("");
  return spec;
}

// The first micro-step from which the recorded trace is that of a defect; all of them when there is none.
size_t SoundSteps(const json& expected, const TraceSpec& spec) {
  const json& steps = expected.at("micro_steps");
  for (size_t i = 0; i < steps.size(); ++i) {
    const bool poisoned = std::count(spec.poisoned.begin(), spec.poisoned.end(), static_cast<int64_t>(i)) > 0;
    if (!poisoned && std::isnan(Number(steps[i].at("loss"))) && spec.criterion == "ce") return i;
  }
  return steps.size();
}

std::string CheckMicroSteps(const json& expected, const TraceResult& run, size_t sound) {
  const json& steps = expected.at("micro_steps");
  if (run.micro_steps.size() < sound) return "the run had " + std::to_string(run.micro_steps.size()) + " micro-steps";
  std::string text;
  for (size_t i = 0; i < sound && text.empty(); ++i) {
    const MicroStep& found = run.micro_steps[i];
    text = FirstOf({Compare(Number(steps[i].at("loss")), found.loss, kTolerance, At("loss", i)),
                    Compare(Number(steps[i].at("batch_size")), static_cast<double>(found.size), 0, At("size", i)),
                    CompareList(steps[i].at("lr_before"), found.lrs, At("learning rate", i))});
    if (i == 0 || !text.empty()) continue;
    const json& before = steps[i - 1];  // what was true after that one is true when this one begins
    text = FirstOf({Compare(Number(before.at("weights_l2")), found.weights_norm, kTolerance, At("weights before", i)),
                    before.at("optimizer_stepped").get<bool>()
                        ? FirstOf({Compare(Number(before.at("global_step")), static_cast<double>(found.step), 0,
                                           At("updates before", i)),
                                   Compare(Number(before.at("micro_step")), static_cast<double>(found.micro_step), 0,
                                           At("micro-batches before", i))})
                        : ""});
  }
  return text;
}

std::string CheckEnd(const json& expected, const TraceResult& run) {
  const json& state = expected.at("train_state");
  return FirstOf(
      {CompareWeights(expected.at("final_weights"), run.weights, kTolerance),
       CompareList(expected.at("final_lrs"), run.lrs, "learning rates at the end"),
       Compare(Number(state.at("global_step")), static_cast<double>(run.state.step), 0, "updates"),
       Compare(Number(state.at("micro_step")), static_cast<double>(run.state.micro_step), 0, "micro-batches")});
}

std::string CheckDerived(const json& expected, const TraceSpec& spec, const TraceResult& run) {
  const auto config = TraceConfig(spec.config);
  if (!config.ok()) return config.status().ToString();
  const auto total = static_cast<double>(TotalUpdates(*config, run.updates_per_pass));
  return FirstOf(
      {Compare(Number(expected.at("derived_steps")), total, 0, "derived steps"),
       Compare(Number(expected.at("accum_steps")), static_cast<double>(config->accum_steps), 0, "accum_steps"),
       Compare(Number(expected.at("checkpoint_interval")), static_cast<double>(CheckpointInterval(*config)), 0,
               "checkpoint interval"),
       Compare(Number(expected.at("log_interval")),
               static_cast<double>(LogInterval(*config, static_cast<int64_t>(total))), 0, "log interval")});
}

// The mean loss of a whole split with these weights, computed plainly.
double PlainEvaluation(const TraceSpec& spec, const json& weights, const std::string& split, int64_t batch) {
  const torch::NoGradGuard no_grad;
  auto model = MakeTraceModel(weights);
  const TraceData& data = spec.splits.at(split);
  double sum = 0, weight = 0;
  for (int64_t row = 0; row < data.x.size(0); row += batch) {
    const int64_t end = std::min(row + batch, data.x.size(0));
    const StepOutput output =
        TraceLoss(spec.criterion, model->forward(data.x.slice(0, row, end)), data.y.slice(0, row, end));
    const double counts = output.weight.item<double>();
    if (counts > 0) sum += output.loss.item<double>() * counts;
    weight += counts;
  }
  return sum / weight;
}

// Rows of an epoch run: evaluation after each pass, and the mean training loss of the pass.
std::string CheckResults(const json& expected, const TraceSpec& spec, const TraceResult& run) {
  const auto config = *TraceConfig(spec.config);
  std::string text;
  if (config.steps) {
    if (spec.splits.count("val") == 0) return "";
    const auto row = run.rows.find(*config.steps);
    if (row == run.rows.end() || !row->second.contains("val")) return "no evaluation at the end";
    const double plain = PlainEvaluation(spec, expected.at("final_weights"), "val", config.dataloader.batch_size);
    return Compare(plain, row->second.at("val").at("loss"), kTolerance, "val loss at the end");
  }
  for (const auto& [index, row] : expected.at("results").items()) {
    const auto found = run.rows.find(std::stoll(index) + 1);  // here: passes that are done
    if (found == run.rows.end()) return "no results after epoch " + index;
    for (const auto& [split, metrics] : row.items()) {
      const auto own = found->second.find(split);
      if (own == found->second.end() || !own->second.contains("loss")) return "no " + split + ".loss in row " + index;
      text = FirstOf({text, Compare(Number(metrics.at("loss")), own->second.at("loss"), kTolerance,
                                    split + ".loss after epoch " + index)});
    }
  }
  if (run.rows.size() != expected.at("results").size()) return "there are " + std::to_string(run.rows.size()) + " rows";
  return text;
}

// Every checkpoint that the recorded calls wrote under a history name is there; the phantom of the last call is not.
std::string CheckSaves(const json& expected, const TraceSpec& spec, const TraceResult& run) {
  const int64_t interval = expected.at("checkpoint_interval").get<int64_t>();
  const std::set<int64_t> saved(run.saved_steps.begin(), run.saved_steps.end());
  if (saved.size() != run.saved_steps.size()) return "a step was saved twice";
  const bool steps = spec.config.contains("steps");
  for (const json& item : expected.at("save_checkpoint_calls")) {
    const json& call = item.at("call");
    const int64_t step = item.at("global_step").get<int64_t>();
    const int64_t index = steps ? step : call.value("epochs", item.at("epoch").get<int64_t>()) + 1;
    const bool due = call.value("last_step", false) || (interval > 0 && index % interval == 0);
    if (due && saved.count(step) == 0) return "no checkpoint at step " + std::to_string(step);
  }
  return "";
}

// The same training in plain code: weighted windows, SGD. What is promised where the recorder has a defect.
std::string CheckAgainstPlain(const TraceSpec& spec, const TraceResult& run) {
  const auto config = *TraceConfig(spec.config);
  if (config.optim.type != "sgd" || !config.sched.type.empty() || !config.epochs) return "";
  auto model = MakeTraceModel(spec.weights);
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(*config.optim.lr)
                                                       .momentum(config.optim.momentum.value_or(0))
                                                       .weight_decay(config.optim.weight_decay.value_or(0)));
  const TraceData& data = spec.splits.at("train");
  const int64_t batch = config.dataloader.batch_size, window = batch * config.accum_steps;
  for (int64_t epoch = 0; epoch < *config.epochs; ++epoch) {
    for (int64_t begin = 0; begin < data.x.size(0); begin += window) {
      optimizer.zero_grad();
      // One mean over all targets of the window that count.
      const int64_t end = std::min(begin + window, data.x.size(0));
      const StepOutput output =
          TraceLoss(spec.criterion, model->forward(data.x.slice(0, begin, end)), data.y.slice(0, begin, end));
      if (output.weight.item<double>() > 0) output.loss.backward();
      optimizer.step();
    }
  }
  std::string text;
  for (const auto& item : model->named_parameters()) {
    text = FirstOf({text, Compare(item.value().detach(), run.weights.at(item.key()), kTolerance, item.key())});
  }
  return text;
}

std::string Check(const json& file, const json& test) {
  const TraceFolder folder;
  TraceSpec spec = SpecOf(file, test);
  spec.checkpoint_root = folder.path();
  const json& expected = test.at("expected");
  const std::string error = expected.at("error").is_null() ? "" : expected["error"].at("message").get<std::string>();
  const bool short_evaluation = absl::StrContains(error, "exhausted early");
  const bool ignored_batch = absl::StrContains(error, "loss normalizer became unavailable");
  const TraceResult run = RunTrace(spec);
  if (!error.empty() && !short_evaluation && !ignored_batch) {
    return absl::IsInvalidArgument(run.status) ? "" : "was accepted; expected: " + error;
  }
  if (!run.status.ok()) return run.status.ToString();
  const size_t sound = SoundSteps(expected, spec);
  std::string text = CheckMicroSteps(expected, run, sound);
  if (ignored_batch || sound < expected.at("micro_steps").size()) return FirstOf({text, CheckAgainstPlain(spec, run)});
  if (run.micro_steps.size() != sound) return "the run had " + std::to_string(run.micro_steps.size()) + " micro-steps";
  text = FirstOf({text, CheckEnd(expected, run), CheckDerived(expected, spec, run), CheckResults(expected, spec, run)});
  return spec.poisoned.empty() ? FirstOf({text, CheckSaves(expected, spec, run)}) : text;
}

void Replay(const json& file, Report& report) {
  for (const json& test : file.at("cases")) {
    report.Case(
        test.at("name").get<std::string>(), [&] { return Check(file, test); },
        TakesUpdatesForEpochs(test.at("config")) ? kEpochLength : "");
  }
}

ATHANOR_ORACLE_FAMILY(training_traces, Replay);

}  // namespace
}  // namespace athanor::oracle

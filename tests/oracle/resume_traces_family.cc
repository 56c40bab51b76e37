// Stop after a checkpoint, restore in a new runner, go on: the continued run must be the uninterrupted one, bit for
// bit.
//
// Recorded as a defect: a run that is resumed in the middle of a pass loses a batch. The promise is the recorded
// `uninterrupted` trace in every case.
#include "tests/oracle/replay.h"
#include "tests/oracle/trace_run.h"

namespace athanor::oracle {
namespace {

using nlohmann::json;

constexpr double kTolerance = 1e-10;

// Micro-steps `from`, `from` + 1 … of the recorded trace against those of the run.
std::string CheckTrace(const json& expected, const TraceResult& run, size_t from, const char* which) {
  const json& steps = expected.at("micro_steps");
  if (run.micro_steps.size() + from != steps.size()) {
    return std::string(which) + ": " + std::to_string(run.micro_steps.size()) + " micro-steps, expected " +
           std::to_string(steps.size() - from);
  }
  for (size_t i = 0; i < run.micro_steps.size(); ++i) {
    const std::string place = std::string(which) + ", micro-step " + std::to_string(from + i);
    if (std::string text = Compare(Number(steps[from + i].at("loss")), run.micro_steps[i].loss, kTolerance, place);
        !text.empty())
      return text;
    const int64_t before = from + i == 0 ? 0 : steps[from + i - 1].at("global_step").get<int64_t>();
    if (run.micro_steps[i].step != before) return place + ": another number of updates before it";
  }
  const json& state = expected.at("train_state");
  return FirstOf(
      {CompareWeights(expected.at("final_weights"), run.weights, kTolerance),
       Compare(Number(state.at("global_step")), static_cast<double>(run.state.step), 0, "updates"),
       Compare(Number(state.at("micro_step")), static_cast<double>(run.state.micro_step), 0, "micro-batches")});
}

std::string Check(const json& file, const json& test) {
  TraceSpec spec;
  spec.config = test.at("config");
  const json& weights = file.at("initial_weights");
  spec.weights = weights.contains("regression") ? weights["regression"] : weights;
  const json& data = file.at("data").contains("regression") ? file["data"]["regression"] : file["data"];
  for (const auto& [split, name] : test.at("splits").items()) {
    spec.splits[split] = MakeTraceData(data.at(name.get<std::string>()), false, {});
  }
  const json& expected = test.at("expected");
  const TraceFolder whole_folder, folder;
  spec.checkpoint_root = whole_folder.path();
  const TraceResult whole = RunTrace(spec);
  if (!whole.status.ok()) return whole.status.ToString();
  if (std::string text = CheckTrace(expected.at("uninterrupted"), whole, 0, "uninterrupted"); !text.empty())
    return text;

  spec.checkpoint_root = folder.path();
  const json& stop = test.at("stop_when_checkpoint_is_saved_at");
  spec.stop = [&](const TrainState& state) {
    return stop.contains("epoch") ? state.epoch >= stop["epoch"].get<int64_t>()
                                  : state.step >= stop.at("step").get<int64_t>();
  };
  const TraceResult first = RunTrace(spec);
  if (!first.status.ok()) return first.status.ToString();
  spec.stop = nullptr;
  spec.candidates = {folder.At(first.state.step)};
  const TraceResult second = RunTrace(spec);
  if (!second.status.ok()) return second.status.ToString();
  if (std::string text =
          CheckTrace(expected.at("uninterrupted"), second, first.micro_steps.size(), "after the restore");
      !text.empty())
    return text;
  for (const auto& [name, tensor] : whole.weights) {
    if (!torch::equal(tensor, second.weights.at(name))) return name + " is not bit-equal";
  }
  return "";
}

void Replay(const json& file, Report& report) {
  for (const json& test : file.at("cases")) {
    report.Case(test.at("name").get<std::string>(), [&] { return Check(file, test); });
  }
}

ATHANOR_ORACLE_FAMILY(resume_traces, Replay);

}  // namespace
}  // namespace athanor::oracle

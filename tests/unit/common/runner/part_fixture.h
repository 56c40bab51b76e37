// One part of a run at a time: a context without ranks, and a trainee that does as it is told.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "athanor/runner/evaluation.h"
#include "athanor/runner/run_context.h"
#include "athanor/runner/trainee.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {

class FakeTrainee : public Trainee {
 public:
  std::map<std::string, absl::StatusOr<std::map<std::string, double>>> evaluations;  // by split
  std::optional<std::string> monitor;
  TrainingState state;
  absl::Status load_status;
  std::vector<std::string> pretrained;  // paths that were loaded
  int captures = 0;

  absl::StatusOr<StepResult> TrainUpdate() override { return StepResult{}; }
  absl::Status EpochEnded(std::optional<double>) override { return absl::OkStatus(); }
  std::optional<std::string> schedule_monitor() const override { return monitor; }
  absl::StatusOr<std::map<std::string, double>> EvaluateSplit(const std::string& split, int64_t) override {
    return evaluations.at(split);
  }
  absl::StatusOr<TrainingState> CaptureState(bool model_only) override {
    ++captures;
    state.meta = {{"model_only", model_only}};
    return state;
  }
  absl::Status LoadState(const RestoredState&, const StateParts&) override { return load_status; }
  absl::Status LoadPretrained(const std::string& path) override {
    pretrained.push_back(path);
    return load_status;
  }
  int64_t StepsPerEpoch() const override { return 10; }
  double EpochFraction() const override { return 0; }
  void ReadStepMetrics(std::map<std::string, double>*) override {}
};

class PartTest : public testing::Test {
 protected:
  class Hooks : public RunnerHooks {
   public:
    void OnProgress(const ProgressReport& progress) override { reports.push_back(progress); }
    void OnPhaseProgress(const PhaseProgress& progress) override { phases.push_back(progress); }
    void OnNote(const std::string& text) override { notes.push_back(text); }
    std::vector<ProgressReport> reports;
    std::vector<PhaseProgress> phases;
    std::vector<std::string> notes;
  };

  RunContext& Context(const nlohmann::json& changes = nlohmann::json::object()) {
    context_ = std::make_unique<RunContext>(TestConfig(changes), Membership(), torch::kCPU, &hooks_);
    return *context_;
  }

  Hooks hooks_;
  FakeTrainee trainee_;
  std::unique_ptr<RunContext> context_;
};

}  // namespace athanor

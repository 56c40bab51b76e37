#include "athanor/runner/record/run_journal.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/derived_options.h"
#include "athanor/parallel/process_group.h"
#include "athanor/runner/watch/memory_report.h"

namespace athanor {
namespace {

absl::StatusOr<double> SumOverRanks(const Membership& members, double mine) {
  if (!members.several()) return mine;
  ASSIGN_OR_RETURN(const std::vector<double> sum, members.group()->AllReduceSum(std::vector<double>{mine}));
  return sum[0];
}

}  // namespace

void RunJournal::Start(int64_t total_updates) {
  interval_ = LogInterval(context_->config, total_updates);
}

absl::Status RunJournal::ReadOut(const TrainState& state) {
  ProgressReport& report = context_->progress.report();
  ASSIGN_OR_RETURN(const RunMeasures::BySplit read, measures_->ReadOut(context_->members));
  ASSIGN_OR_RETURN(report.total_samples_per_second,
                   SumOverRanks(context_->members, context_->progress.samples_per_second()));
  for (const auto& [split, means] : read) {
    for (const auto& [name, value] : means) report.metrics[absl::StrCat(split, ".", name)] = value;
  }
  const auto current = read.find(measures_->current());
  if (current != read.end() && current->second.contains("loss")) report.loss = current->second.at("loss");
  RETURN_IF_ERROR(context_->Alone("reading metrics", [&] {
    trainee_->ReadStepMetrics(&report.metrics);
    const MemoryUse memory = ReadMemoryUse(context_->device);
    report.memory_bytes = memory.resident;
    report.memory_bytes_peak = memory.resident_peak;
    report.device_bytes = memory.allocated;
    report.device_bytes_peak = memory.allocated_peak;
    report.device_reserved_bytes_peak = memory.reserved_peak;
  }));
  if (files_->recorder() == nullptr) return absl::OkStatus();
  files_->recorder()->Step(context_->progress.Refresh(state, trainee_->EpochFraction()), measures_->current());
  return absl::OkStatus();
}

absl::Status RunJournal::AddRow(const TrainState& state, const std::map<std::string, double>& results, bool evaluated,
                                bool is_best) {
  if (std::exchange(row_step_, state.step) == state.step && !evaluated) return absl::OkStatus();
  RunMeasures::BySplit training;
  if (files_->workspace().has_value()) RETURN_IF_ERROR(MeasureTraining(&training));
  if (files_->recorder() == nullptr) return absl::OkStatus();
  files_->recorder()->Evaluated(context_->progress.Refresh(state, trainee_->EpochFraction()), results, training,
                                is_best);
  return absl::OkStatus();
}

absl::Status RunJournal::MeasureTraining(RunMeasures::BySplit* training) {
  ProgressReport& report = context_->progress.report();
  const bool with_metrics = interval_ == 0;  // nobody else reads them out
  ASSIGN_OR_RETURN(*training, measures_->Rows(context_->members, with_metrics));
  RETURN_IF_ERROR(context_->Alone("reading metrics", [&] { trainee_->ReadStepMetrics(&report.metrics); }));
  for (const auto& [split, means] : *training) {
    for (const auto& [name, value] : means) {
      if (with_metrics) report.metrics[absl::StrCat(split, ".", name)] = value;
    }
  }
  return absl::OkStatus();
}

}  // namespace athanor

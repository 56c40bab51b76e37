#include "athanor/runner/record/run_recorder.h"

#include <cmath>
#include <filesystem>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/write_fence.h"
#include "athanor/checkpoint/format/layout.h"

namespace athanor {
namespace {

// Four decimals, or four significant digits of what is smaller: a learning rate is never 0.0000.
std::string NumberText(double value) {
  return std::abs(value) < 0.1 && value != 0 ? absl::StrFormat("%.4g", value) : absl::StrFormat("%.4f", value);
}

std::string MetricsText(const std::map<std::string, double>& metrics, absl::string_view prefix) {
  std::string text;
  for (const auto& [name, value] : metrics) {
    absl::string_view shown = name;
    if (!prefix.empty() && absl::StartsWith(shown, prefix)) shown.remove_prefix(prefix.size());
    absl::StrAppend(&text, "\t", shown, ": ", NumberText(value));
  }
  return text;
}

// "val.loss" -> split "val", metric "loss"; "lr" is one of the `trained` split.
std::pair<std::string, std::string> SplitName(const std::string& name, const std::string& trained) {
  const size_t dot = name.find('.');
  return dot == std::string::npos ? std::pair(trained, name) : std::pair(name.substr(0, dot), name.substr(dot + 1));
}

// Where the time of a step goes, how fast it is, what it takes.
void AddMeasures(const ProgressReport& progress, const std::string& split, std::map<std::string, double>* metrics) {
  const auto add = [&](const char* name, double value) { (*metrics)[absl::StrCat(split, ".", name)] = value; };
  add("samples_per_second", progress.total_samples_per_second);
  add("step_seconds", progress.step_seconds);
  add("data_seconds", progress.times.data);
  add("forward_seconds", progress.times.forward);
  add("backward_seconds", progress.times.backward);
  add("optimizer_seconds", progress.times.optimizer);
  add("wait_seconds", progress.times.wait);
  constexpr double kMebibyte = 1 << 20;
  add("memory_mb", static_cast<double>(progress.memory_bytes) / kMebibyte);
  if (progress.device_bytes_peak == 0) return;
  add("max_memory_allocated_mb", static_cast<double>(progress.device_bytes_peak) / kMebibyte);
  add("max_memory_reserved_mb", static_cast<double>(progress.device_reserved_bytes_peak) / kMebibyte);
}

ResultRow RowOf(const std::map<std::string, double>& metrics) {
  ResultRow row;
  for (const auto& [name, value] : metrics) {
    const auto [split, metric] = SplitName(name, "train");
    row[split][metric] = value;
  }
  return row;
}

}  // namespace

RunRecorder::RunRecorder(const RunnerConfig& config, Workspace workspace,
                         const std::vector<std::string>& evaluate_splits,
                         const std::vector<std::string>& trained_splits)
    : workspace_(std::move(workspace)),
      by_epoch_(config.epochs.has_value() && config.evaluate.interval == 0),
      trained_(trained_splits),
      started_(absl::Now()),
      results_(config.score, evaluate_splits) {}

RunRecorder::~RunRecorder() {
  if (log_ != nullptr) std::fclose(log_);
}

absl::StatusOr<std::unique_ptr<RunRecorder>> RunRecorder::Open(const RunnerConfig& config, Workspace workspace,
                                                               const std::vector<std::string>& evaluate_splits,
                                                               const std::vector<std::string>& trained_splits) {
  std::unique_ptr<RunRecorder> recorder(new RunRecorder(config, std::move(workspace), evaluate_splits, trained_splits));
  const Workspace& place = recorder->workspace_;
  for (const char* name : {"/results.json", "/latest.json", "/best.json", "/summary.json"})
    RemoveLeftovers(place.dir + name);
  RETURN_IF_ERROR(WriteMetadata(place, config));
  if (config.log) {
    const std::string path = place.log_file();
    RETURN_IF_ERROR(EnsureDir(std::filesystem::path(path).parent_path().string()));
    recorder->log_ = std::fopen(path.c_str(), "ae");
    if (recorder->log_ == nullptr) return FileError(errno, "create", path);
  }
  if (config.console) recorder->console_ = std::make_unique<RunConsole>(RunConsole::Stderr());
  if (config.tensorboard) {
    recorder->events_folder_ = place.tensorboard_dir();
    ASSIGN_OR_RETURN(recorder->events_, EventWriter::Create(recorder->events_folder_));
  }
  for (const auto& [wanted, name, format] :
       {std::tuple(config.csv, "/metrics.csv", MetricsLog::Format::kCsv),
        std::tuple(config.jsonl, "/metrics.jsonl", MetricsLog::Format::kJsonLines)}) {
    if (!wanted) continue;
    ASSIGN_OR_RETURN(std::unique_ptr<MetricsLog> log, MetricsLog::Open(place.dir + name, format));
    recorder->logs_.push_back(std::move(log));
  }
  return recorder;
}

int64_t RunRecorder::IndexOf(const ProgressReport& progress) const {
  return by_epoch_ ? static_cast<int64_t>(std::floor(progress.epoch)) : progress.step;
}

nlohmann::json RunRecorder::Positions() const {
  nlohmann::json positions = {{"rows", results_.rows().size()}};
  for (const auto& log : logs_) positions[log->name()] = log->size();
  if (events_ != nullptr) positions["tensorboard"] = std::filesystem::path(events_folder_).filename().string();
  return positions;
}

void RunRecorder::Begin(const nlohmann::json& positions, int64_t step, bool evaluated) {
  for (const auto& log : logs_) {
    const auto offset = positions.is_object() ? positions.find(log->name()) : positions.end();
    if (!positions.is_object()) {
      Keep(log->SetAside());
    } else if (offset != positions.end() && offset->is_number_integer()) {
      Keep(log->DropRows(offset->get<int64_t>(),
                         [&](int64_t row) { return row > step || (row == step && !evaluated); }));
    }
  }
  if (!positions.is_object() || positions.empty()) return;  // empty: an earlier version kept none
  if (evaluated) recorded_step_ = step;
  Keep(results_.Rewrite(workspace_.dir, IdentityOf(workspace_)));
  const auto folder = positions.find("tensorboard");
  if (events_ == nullptr || folder == positions.end() || !folder->is_string()) return;
  ContinueEvents(folder->get<std::string>(), step + 1);
}

void RunRecorder::ContinueEvents(const std::string& name, int64_t step) {
  const std::filesystem::path folder = std::filesystem::path(events_folder_).parent_path() / name;
  std::error_code error;
  if (!IsPlainFileName(name) || !std::filesystem::is_directory(folder, error)) return;
  absl::StatusOr<std::unique_ptr<EventWriter>> events = EventWriter::Create(folder.string());
  if (!events.ok()) return Keep(events.status());
  // The file that was begun for this start is empty.
  std::filesystem::remove(events_->path(), error);
  std::filesystem::remove(events_folder_, error);  // unless something else is in it
  events_ = *std::move(events);
  events_folder_ = folder.string();
  Keep(events_->AddSessionStart(step));
  Keep(events_->Flush());
}

void RunRecorder::Step(const ProgressReport& progress, const std::string& split) {
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : progress.metrics) {
    const auto [of, metric] = SplitName(name, split);
    if (of == split) metrics[absl::StrCat(split, ".", metric)] = value;
  }
  AddMeasures(progress, split, &metrics);
  Scalars(metrics, progress);
  const std::string last = progress.total_steps > 0 ? absl::StrCat(progress.total_steps) : "∞";
  Note("INFO", absl::StrCat("training on ", split, " [", progress.step, "/", last, "]",
                            MetricsText(metrics, split + "."), "\teta: ", DurationText(progress.eta_seconds)));
  if (console_ != nullptr) console_->Progress(progress);
  if (events_ != nullptr) Keep(events_->Flush());
}

void RunRecorder::Evaluated(const ProgressReport& progress, const std::map<std::string, double>& metrics,
                            const std::map<std::string, std::map<std::string, double>>& training, bool is_best) {
  ResultRow row = RowOf(metrics);
  for (const auto& [split, values] : row) {
    std::map<std::string, double> named;
    for (const auto& [metric, value] : values) named[metric] = value;
    Note("INFO", absl::StrCat("evaluating on ", split, " [", progress.step, "]", MetricsText(named, "")));
  }
  for (const std::string& trained : trained_) {
    for (const auto& [name, value] : progress.metrics) {
      const auto [split, metric] = SplitName(name, trained);
      if (split == trained) row[trained].emplace(metric, value);
    }
  }
  for (const auto& [split, means] : training) {
    for (const auto& [name, value] : means) row[split][name] = value;
  }
  if (progress.step != recorded_step_) Scalars(metrics, progress);
  results_.Append(IndexOf(progress), row);
  Keep(results_.Write(workspace_.dir, IdentityOf(workspace_), is_best));
  if (events_ != nullptr) Keep(events_->Flush());
}

void RunRecorder::Scalars(const std::map<std::string, double>& metrics, const ProgressReport& progress) {
  const absl::Time now = absl::Now();
  for (const auto& log : logs_) Keep(log->Append(now, progress.step, progress.epoch, metrics));
  if (events_ == nullptr) return;
  for (const auto& [name, value] : metrics) {
    Keep(events_->AddScalar(absl::StrReplaceAll(name, {{".", "/"}}), value, progress.step, now));
  }
}

void RunRecorder::Note(absl::string_view level, absl::string_view text) {
  if (log_ == nullptr && console_ == nullptr) return;
  const std::string when = absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::Now(), absl::LocalTimeZone());
  const std::string line = absl::StrCat(absl::StrReplaceAll(when, {{".", ","}}), " [", level, "] ", text, "\n");
  if (console_ != nullptr) console_->Line(level, absl::string_view(line).substr(0, line.size() - 1));
  if (log_ == nullptr) return;
  if (const absl::Status fenced = CheckWriteFence(workspace_.log_file()); !fenced.ok()) return Keep(fenced);
  if (std::fwrite(line.data(), 1, line.size(), log_) != line.size() || std::fflush(log_) != 0) {
    Keep(FileError(errno, "write", workspace_.log_file()));
  }
}

void RunRecorder::Finish(absl::string_view outcome, const ProgressReport& progress, absl::string_view error) {
  nlohmann::json summary = IdentityOf(workspace_);
  summary["status"] = std::string(outcome);
  summary["error"] = error.empty() ? nlohmann::json() : nlohmann::json(std::string(error));
  summary["duration_seconds"] = absl::ToDoubleSeconds(absl::Now() - started_);
  summary["global_step"] = progress.step;
  summary["epoch"] = progress.epoch;
  summary["samples"] = progress.samples;
  summary["nonfinite_losses"] = progress.nonfinite_losses;
  summary["skipped_updates"] = progress.skipped_updates;
  summary["checkpoint_failures"] = progress.checkpoint_failures;
  summary["resumed_from_step"] = progress.resumed_from_step;
  summary["latest_result"] = results_.LatestResult();
  summary["best_result"] = results_.best_index().has_value() ? results_.BestResult() : nlohmann::json();
  summary["workspace"] = workspace_.dir;
  summary["checkpoints"] = workspace_.checkpoint_dir;
  Keep(WriteFileAtomically(workspace_.dir + "/summary.json", summary.dump(2) + "\n"));
  Note(error.empty() ? "INFO" : "ERROR",
       absl::StrCat(outcome, " at step ", progress.step, error.empty() ? "" : ": ", error));
  if (events_ != nullptr) Keep(events_->Flush());
}

void RunRecorder::Keep(const absl::Status& status) {
  if (!status.ok() && error_.ok()) error_ = status;
}

}  // namespace athanor

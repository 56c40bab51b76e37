#include "athanor/config/job_rules.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace athanor {
namespace {

JobField Of(JobFieldKind kind, absl::string_view path, absl::string_view fallback, absl::string_view meaning) {
  return {.rule = {.name = path, .meaning = meaning}, .kind = kind, .fallback = fallback};
}

JobField Number(JobFieldKind kind, absl::string_view path, double min, double max, absl::string_view fallback,
                absl::string_view meaning) {
  JobField field = Of(kind, path, fallback, meaning);
  field.rule.min = min;
  field.rule.max = max;
  return field;
}

JobField Choice(absl::string_view path, std::vector<absl::string_view> allowed, absl::string_view fallback,
                absl::string_view meaning) {
  JobField field = Of(JobFieldKind::kChoice, path, fallback, meaning);
  field.rule.allowed = std::move(allowed);
  return field;
}

std::vector<JobField> MakeFields() {
  using enum JobFieldKind;
  return {
      Of(kName, "name", "", "What the job is called. Several may have one name; the id tells them apart."),
      Of(kMap, "labels.*", "", "Text to find jobs by: `athanor job list -l team=vision`."),
      Of(kText, "task.name", "", "A built-in task, or one that `task.library` registers."),
      Of(kText, "task.library", "", "A shared object with a task of your own ([tasks.md](tasks.md))."),
      Of(kMap, "task.options", "", "The task's own options ([task-options.md](task-options.md))."),
      Number(kInteger, "resources.ranks", 1, 4096, "1", "Processes that train together."),
      Number(kInteger, "resources.slots_per_rank", 1, 64, "1", "Slots of an agent that one rank takes."),
      Choice("resources.device", {"cpu", "cuda"}, "cpu", "Kind of slots."),
      Number(kInteger, "resources.threads_per_rank", 1, 1024, "1", "CPU threads within an operation."),
      Number(kInteger, "priority", -1000, 1000, "0", "Higher goes first."),
      Of(kBoolean, "preemptible", "false", "Whether a job of higher priority may suspend this one."),
      Of(kMap, "runner", "", "The run itself ([configuration.md](configuration.md))."),
      Number(kInteger, "restart.budgets.*", -1, 1'000'000, "",
             "Restarts for each cause; -1: unlimited ([errors.md](errors.md) has causes and defaults)."),
      Of(kDuration, "restart.backoff_initial", "200ms", "Pause before the second restart in a row without progress."),
      Of(kDuration, "restart.backoff_max", "1m", "The pause doubles up to this."),
      Number(kNumber, "restart.backoff_jitter", 0, 1, "0.2", "Share of a pause that chance adds."),
      Number(kInteger, "restart.max_generations_without_progress", 0, 1'000'000, "5",
             "Ends a crash loop; 0 means the default."),
      Of(kDuration, "timeouts.join", "1m", "From the launch until every rank has joined."),
      Of(kDuration, "timeouts.startup", "5m", "From the join until the first step."),
      Of(kDuration, "timeouts.hang", "30s", "Without an advance of any rank; ten times as long in slow phases."),
      Of(kDuration, "timeouts.stop_grace", "30s", "From the request to leave until the ranks are killed."),
      Choice(
          "fencing", {"generation", "strict"}, "generation",
          "When a rank ends whose agent lost the coordinator: `generation`: when it was replaced; `strict`: with the "
          "agent's lease."),
      Of(kMap, "env.*", "", "Variables of every rank: text, `{from_env: X}` or `{from_file: path}`."),
      Of(kText, "parent.job", "", "Begin with the weights of this job …"),
      Of(kText, "parent.checkpoint", "", "… of its checkpoint of this step, alias or tag."),
      Choice("log_format", {"text", "json"}, "", "Of the ranks' logs; absent: as their agent was told."),
  };
}

std::string Allowed(const JobField& field) {
  switch (field.kind) {
    case JobFieldKind::kName:
      return "lower-case letters, digits and `-._` between them";
    case JobFieldKind::kText:
      return "text";
    case JobFieldKind::kInteger:
      return absl::StrCat("integer from ", field.low(), " to ", field.high());
    case JobFieldKind::kNumber:
      return absl::StrCat("number from ", field.low(), " to ", field.high());
    case JobFieldKind::kBoolean:
      return "true, false";
    case JobFieldKind::kChoice:
      return AllowedChoices(field);
    case JobFieldKind::kDuration:
      return "duration";
    case JobFieldKind::kMap:
      return "map";
  }
  return "";
}

}  // namespace

std::span<const JobField> JobFields() {
  static const std::vector<JobField>& fields = *new std::vector<JobField>(MakeFields());
  return fields;
}

const JobField& JobFieldAt(absl::string_view path) {
  for (const JobField& field : JobFields()) {
    if (field.rule.name == path) return field;
  }
  std::fprintf(stderr, "job_rules.cc has no field %s\n", std::string(path).c_str());
  std::abort();
}

std::vector<std::string> JobKeys(absl::string_view section) {
  const std::string prefix = section.empty() ? "" : absl::StrCat(section, ".");
  std::vector<std::string> keys;
  for (const JobField& field : JobFields()) {
    if (!absl::StartsWith(field.rule.name, prefix)) continue;
    const absl::string_view below = field.rule.name.substr(prefix.size());
    const std::string key(below.substr(0, below.find('.')));
    if (keys.empty() || keys.back() != key) keys.push_back(key);
  }
  return keys;
}

bool InRange(const JobField& field, double value) {
  return value >= field.rule.min && value <= field.rule.max;
}

bool IsChoice(const JobField& field, absl::string_view text) {
  return std::find(field.rule.allowed.begin(), field.rule.allowed.end(), text) != field.rule.allowed.end();
}

std::string AllowedChoices(const JobField& field) {
  return absl::StrJoin(field.rule.allowed, ", ");
}

std::string JobFilesMarkdown() {
  std::string text =
      "# Job files\n\n"
      "The fields of a job file. Generated from `common/athanor/config/job_rules.cc`; do not edit: a test compares "
      "it.\n"
      "How values are written, and what paths start from: [cli.md](cli.md). A duration is `200ms`, `10s`, `5m`, at "
      "most "
      "`720h`.\n\n| field | if absent | allowed | meaning |\n|---|---|---|---|\n";
  for (const JobField& field : JobFields()) {
    const std::string fallback = field.fallback.empty() ? "" : absl::StrCat("`", std::string(field.fallback), "`");
    absl::StrAppend(&text, "| `", std::string(field.rule.name), "` | ", fallback, fallback.empty() ? "| " : " | ",
                    Allowed(field), " | ", std::string(field.rule.meaning), " |\n");
  }
  return text;
}

}  // namespace athanor

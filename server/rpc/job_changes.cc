#include "server/rpc/job_changes.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/config/job_rules.h"
#include "athanor/v1/job.pb.h"
#include "server/rpc/request_validation.h"

namespace athanor {
namespace {

constexpr int kMaxChanges = 64;
constexpr size_t kMaxChangeBytes = 4096;
constexpr int64_t kTooMany = 1 << 30;  // of ranks: the check of sizes refuses it
constexpr absl::string_view kRunner = "runner.";
constexpr absl::string_view kAxes = "runner.parallel.axes.";
constexpr absl::string_view kRanks = "resources.ranks";

template <typename... Parts>
absl::Status Bad(absl::string_view assignment, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("--set ", Show(std::string(assignment)), ": ", parts...));
}

// The sizes of a job, each where it is kept.
using Size = std::pair<absl::string_view, void (v1::ResourceRequest::*)(int32_t)>;
constexpr Size kSizes[] = {{kRanks, &v1::ResourceRequest::set_ranks},
                           {"resources.slots_per_rank", &v1::ResourceRequest::set_slots_per_rank},
                           {"resources.threads_per_rank", &v1::ResourceRequest::set_threads_per_rank}};

// The field as a job file has it: an option of the runner may be written without its section.
std::string FieldOf(absl::string_view written) {
  const absl::string_view section = written.substr(0, written.find('.'));
  const std::vector<std::string> sections = JobKeys("");
  const bool known = std::find(sections.begin(), sections.end(), section) != sections.end();
  return known ? std::string(written) : absl::StrCat(kRunner, written);
}

// A mesh as it is written: the product of its degrees, and the axis that takes what they leave ("": none).
struct Mesh {
  explicit Mesh(const RunnerConfig& config) {
    for (const auto& [axis, degree] : ParallelAxes(config)) {
      if (degree == -1) open = axis;
      if (degree > 1) product = std::min<int64_t>(product * degree, kTooMany);
    }
  }
  int64_t product = 1;
  std::string open;
};

// The ranks that the mesh `now` asks for where `ranks` made up `before`: an open axis keeps its degree.
int64_t RanksOf(const Mesh& now, const Mesh& before, int64_t ranks) {
  if (now.open.empty()) return now.product;
  if (now.open != before.open || ranks % before.product != 0) return ranks;
  return std::min<int64_t>(ranks / before.product * now.product, kTooMany);
}

absl::Status CheckGoesOn(const RunnerConfig& saved, const RunnerConfig& now) {
  const std::vector<std::string> differences = ResumeDifferences(ToJson(saved), now);
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "a checkpoint does not go on with other options than it was made with: ", absl::StrJoin(differences, "; "),
      ". Begin again with --from-scratch, or submit another job"));
}

RunnerConfig ConfigOf(const std::string& runner_json) {
  RunnerConfig config;
  CheckRunnerConfig(ParseJsonText(runner_json), &config);
  return config;
}

}  // namespace

absl::Status CheckChanges(const Assignments& set) {
  if (set.size() > kMaxChanges)
    return absl::InvalidArgumentError(absl::StrCat("set: ", set.size(), " assignments; allowed: ", kMaxChanges));
  for (const std::string& assignment : set) {
    if (assignment.size() > kMaxChangeBytes)
      return Bad(assignment, assignment.size(), " bytes; allowed: ", kMaxChangeBytes);
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0)
      return Bad(assignment, "expected field=value, as in parallel.axes.shard=4");
  }
  return absl::OkStatus();
}

absl::StatusOr<core::JobSpec> ChangeSpec(const core::JobSpec& spec, const Assignments& set, bool from_scratch) {
  v1::JobSpec changed;
  if (!changed.ParseFromString(spec.payload)) return absl::DataLossError("the stored job cannot be read");
  const RunnerConfig saved = ConfigOf(changed.runner_json());
  nlohmann::json runner = ParseJsonText(changed.runner_json());
  bool other_axes = false, ranks_set = false;
  for (const std::string& assignment : set) {
    const size_t equals = assignment.find('=');
    const std::string field = FieldOf(assignment.substr(0, equals)), text = assignment.substr(equals + 1);
    const auto size =
        std::find_if(std::begin(kSizes), std::end(kSizes), [&](const Size& one) { return one.first == field; });
    if (size != std::end(kSizes)) {
      int32_t value = 0;
      if (!absl::SimpleAtoi(text, &value) || value < 1)
        return Bad(assignment, "found ", Show(text), "; allowed: integer >= 1");
      (changed.mutable_resources()->*size->second)(value);
      ranks_set = ranks_set || field == kRanks;
    } else if (absl::StartsWith(field, kRunner)) {
      if (const absl::Status status = ApplyOverride(runner, field.substr(kRunner.size()), text); !status.ok())
        return Bad(assignment, status.message());
      other_axes = other_axes || absl::StartsWith(field, kAxes);
    } else {
      return Bad(
          assignment, "a resume keeps it; allowed: options of the runner, ",
          absl::StrJoin(kSizes, ", ", [](std::string* out, const Size& one) { absl::StrAppend(out, one.first); }));
    }
  }
  changed.set_runner_json(runner.dump());
  const RunnerConfig now = ConfigOf(changed.runner_json());
  if (other_axes && !ranks_set)
    changed.mutable_resources()->set_ranks(static_cast<int32_t>(RanksOf(Mesh(now), Mesh(saved), spec.ranks)));
  ASSIGN_OR_RETURN(core::JobSpec next, TakeJobSpec(std::move(changed)));
  if (!from_scratch) RETURN_IF_ERROR(CheckGoesOn(saved, now));
  return next;
}

}  // namespace athanor

// The semantic difference of two configurations, both ways, and what it means for a resume.
//
// The differences themselves and the equality of ids are compared exactly. The verdict on resuming is the recorded one
// unless it records a defect: the recorder looks one way only (an option that is gone is not noticed), and it forbids
// options that cannot harm (more steps, loader workers). There the library's own rule is checked.
#include <algorithm>

#include "athanor/config/config_identity.h"
#include "athanor/config/config_loader.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

using nlohmann::json;

std::string Same(const json& expected, const json& found, const char* what) {
  return expected == found ? "" : std::string(what) + ": expected " + expected.dump() + ", found " + found.dump();
}

std::string CheckVerdict(const json& test, const ConfigDifference& difference) {
  const bool recorded = test.at("resume_allowed").get<bool>();
  const bool allowed = difference.ForbiddenPaths().empty();
  if (recorded == allowed) return "";
  const auto paths = difference.Paths();
  const bool harmless =
      std::all_of(paths.begin(), paths.end(), [](const std::string& p) { return MayChangeOnResume(p); });
  const bool only_gone = difference.changed.empty() && !difference.before.empty();
  if (allowed ? harmless : only_gone) return "";
  return std::string("resume: expected ") + (recorded ? "allowed" : "forbidden");
}

std::string Check(const json& test) {
  const json& saved = test.at("saved");
  const json& current = test.at("current");
  if (test.contains("construct_error") && !test["construct_error"].is_null()) {
    return CheckBoundaries(current).ok() && CheckBoundaries(saved).ok() ? "the configuration was accepted" : "";
  }
  if (absl::Status status = CheckBoundaries(current); !status.ok()) return status.ToString();
  const ConfigDifference difference = SemanticDifference(saved, current);
  const json canonical = CanonicalConfig(current);
  std::vector<std::string> keys;
  for (const auto& [key, value] : canonical.items()) keys.push_back(key);
  return FirstOf(
      {Same(test.at("semantic_diff_saved_vs_current"), difference.changed, "difference"),
       Same(test.at("reverse_diff"), difference.before, "difference the other way"),
       Same(test.at("same_hash"), ConfigId(saved) == ConfigId(current), "equality of ids"),
       test.contains("canonical_current_keys") ? Same(test["canonical_current_keys"], keys, "canonical keys") : "",
       ConfigId(saved).size() == 12 ? "" : "the id has not 12 digits", CheckVerdict(test, difference)});
}

std::string CheckHeader(const json& file) {
  if (!file.contains("default_config")) return "";
  const json& expected = file.at("default_canonical");
  return FirstOf({Same(expected, CanonicalConfig(file["default_config"]), "canonical form of the default"),
                  Same(expected, CanonicalConfig(json::object()), "canonical form of nothing")});
}

void Replay(const json& file, Report& report) {
  // Counted only when it fails: the number of passed cases is that of the file.
  if (const std::string text = CheckHeader(file); !text.empty()) report.Case("(header)", [&] { return text; });
  for (const json& test : file.at("cases")) {
    report.Case(test.at("name").get<std::string>(), [&] { return Check(test); });
  }
}

ATHANOR_ORACLE_FAMILY(runner_config_diff, Replay);

}  // namespace
}  // namespace athanor::oracle

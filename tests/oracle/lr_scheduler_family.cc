// Warm-up, cool-down and the methods of LrSchedule, step by step, through a save and a restore, and its refusals.
#include "athanor/optim/lr_schedule.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

constexpr double kTolerance = 1e-12;

template <class T>
void Take(const nlohmann::json& args, const char* name, T* to) {
  if (const auto found = args.find(name); found != args.end() && !found->is_null())
    *to = found->get<std::remove_cvref_t<decltype(**to)>>();
}

LrScheduleOptions OptionsOf(const nlohmann::json& args) {
  LrScheduleOptions options;
  options.type = args.value("method", "cosine");
  options.total_steps = args.at("total_steps").get<int64_t>();
  Take(args, "warmup_steps", &options.warmup_steps);
  Take(args, "cooldown_steps", &options.cooldown_steps);
  Take(args, "final_lr", &options.final_lr);
  Take(args, "final_lr_ratio", &options.final_lr_ratio);
  Take(args, "min_lr", &options.min_lr);
  Take(args, "scaling", &options.scaling);
  return options;
}

std::string CheckLrs(const nlohmann::json& expected, const LrSchedule& schedule, size_t step) {
  if (expected.size() != schedule.lrs().size()) return "another number of groups at step " + std::to_string(step);
  for (size_t group = 0; group < expected.size(); ++group) {
    const double want = Number(expected[group]), found = schedule.lrs()[group];
    // Relative to the value itself: learning rates are small.
    if (std::abs(want - found) > kTolerance * std::abs(want)) {
      return Compare(want, found, 0, "lr of group " + std::to_string(group) + " at step " + std::to_string(step));
    }
  }
  return "";
}

std::string CheckEffective(const nlohmann::json& effective, const LrScheduleOptions& found) {
  const auto same = [](const nlohmann::json& expected, const auto& value, const char* what) -> std::string {
    if (expected.is_null() != !value.has_value()) return std::string(what) + " is set or unset otherwise";
    return expected.is_null() ? "" : Compare(Number(expected), static_cast<double>(*value), kTolerance, what);
  };
  return FirstOf({same(effective["warmup_steps"], found.warmup_steps, "warmup_steps"),
                  same(effective["cooldown_steps"], found.cooldown_steps, "cooldown_steps"),
                  same(effective["min_lr"], found.min_lr, "min_lr"),
                  same(effective["final_lr"], found.final_lr, "final_lr"),
                  same(effective["final_lr_ratio"], found.final_lr_ratio, "final_lr_ratio"),
                  effective["scaling"] == *found.scaling ? "" : "scaling is " + *found.scaling});
}

// The arguments that the recorded message is about; ours must name one of them.
std::string CheckRefusal(const nlohmann::json& test, const absl::Status& status) {
  if (status.ok()) return "was accepted; expected: " + test.value("message", "");
  if (!absl::IsInvalidArgument(status)) return "refused as " + status.ToString();
  const std::string text(status.message());
  for (const auto& [name, value] : test["args"].items()) {
    // `method` is called `type` here.
    if (text.find(name == "method" ? "type" : name) != std::string::npos) return "";
  }
  return "the refusal names no argument: " + text;
}

std::string Check(const nlohmann::json& test) {
  const auto base_lrs = test.at("base_lrs").get<std::vector<double>>();
  auto schedule = LrSchedule::Make(OptionsOf(test.at("args")), base_lrs);
  if (test.contains("error")) return CheckRefusal(test, schedule.status());
  if (!schedule.ok()) return schedule.status().ToString();
  if (test.contains("effective")) {
    if (std::string text = CheckEffective(test["effective"], schedule->options()); !text.empty()) return text;
  }
  const size_t resume_after =
      test.contains("resume") ? test["resume"].at("after_steps").get<size_t>() : std::numeric_limits<size_t>::max();
  const nlohmann::json& lrs = test.at("lrs");
  for (size_t step = 0; step < lrs.size(); ++step) {
    if (step > 0) {
      if (absl::Status status = schedule->Step(); !status.ok()) return status.ToString();
    }
    if (step == resume_after) {
      const nlohmann::json state = nlohmann::json::parse(schedule->StateDict().dump());
      auto fresh = LrSchedule::Make(OptionsOf(test.at("args")), base_lrs);
      if (absl::Status status = fresh->LoadStateDict(state); !status.ok()) return status.ToString();
      schedule = std::move(fresh);
    }
    if (std::string text = CheckLrs(lrs[step], *schedule, step); !text.empty()) return text;
  }
  return "";
}

void Replay(const nlohmann::json& file, Report& report) {
  for (const nlohmann::json& test : file.at("cases")) {
    report.Case(test.at("name").get<std::string>(), [&] { return Check(test); });
  }
}

ATHANOR_ORACLE_FAMILY(lr_scheduler, Replay);

}  // namespace
}  // namespace athanor::oracle

#include "athanor/task/task_options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/config/reflection.h"

namespace athanor {
namespace {

constexpr char kProbed[] = "athanor.task_options.probed";
thread_local TaskOptionsProbe* probe = nullptr;

std::string ListText(const std::vector<int64_t>& values) {
  return values.empty() ? "" : absl::StrCat("[", absl::StrJoin(values, ", "), "]");
}

}  // namespace

TaskOptionsProbe::TaskOptionsProbe() {
  probe = this;
}

TaskOptionsProbe::~TaskOptionsProbe() {
  probe = nullptr;
}

bool TaskOptionsProbe::Stopped(const absl::Status& status) {
  return status.GetPayload(kProbed).has_value();
}

TaskOptions::TaskOptions(std::string task, const nlohmann::json& options) : task_(std::move(task)), options_(options) {
  if (!options_.is_null() && !options_.is_object()) {
    mistakes_.push_back(absl::StrCat("task.options: found ", DescribeJson(options_), "; allowed: a mapping"));
  }
}

const nlohmann::json* TaskOptions::Find(const std::string& name, const std::string& fallback,
                                        const std::string& allowed) {
  asked_.push_back({name, fallback, allowed});
  if (!options_.is_object()) return nullptr;
  auto found = options_.find(name);
  return found == options_.end() || found->is_null() ? nullptr : &*found;
}

void TaskOptions::RefuseLast(const nlohmann::json& found) {
  Complain(asked_.back().name, absl::StrCat("found ", DescribeJson(found), "; allowed: ", asked_.back().allowed));
}

void TaskOptions::Complain(const std::string& name, const std::string& what) {
  mistakes_.push_back(absl::StrCat("task.options.", name, ": ", what));
}

int64_t TaskOptions::Integer(const std::string& name, int64_t fallback, int64_t min, int64_t max) {
  const nlohmann::json* value = Find(name, absl::StrCat(fallback), absl::StrCat("integer from ", min, " to ", max));
  if (value == nullptr) return fallback;
  if (value->is_number_integer() && *value >= min && *value <= max) return value->get<int64_t>();
  RefuseLast(*value);
  return fallback;
}

double TaskOptions::Number(const std::string& name, double fallback, double min, double max) {
  const nlohmann::json* value =
      Find(name, NumberText(fallback), absl::StrCat("number from ", NumberText(min), " to ", NumberText(max)));
  if (value == nullptr) return fallback;
  if (value->is_number() && value->get<double>() >= min && value->get<double>() <= max) return value->get<double>();
  RefuseLast(*value);
  return fallback;
}

bool TaskOptions::Flag(const std::string& name, bool fallback) {
  const nlohmann::json* value = Find(name, fallback ? "true" : "false", "true or false");
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  RefuseLast(*value);
  return fallback;
}

std::string TaskOptions::Text(const std::string& name, const std::string& fallback) {
  const nlohmann::json* value = Find(name, fallback, "text");
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  RefuseLast(*value);
  return fallback;
}

std::string TaskOptions::RequiredText(const std::string& name) {
  const nlohmann::json* value = Find(name, "must be given", "text, not empty");
  if (value != nullptr && value->is_string() && !value->get_ref<const std::string&>().empty()) {
    return value->get<std::string>();
  }
  if (value == nullptr) {
    Complain(name, absl::StrCat("missing; ", task_, " needs it"));
  } else {
    RefuseLast(*value);
  }
  return "";
}

std::map<std::string, std::string> TaskOptions::Texts(const std::string& name) {
  const nlohmann::json* value = Find(name, "", "a mapping of names to texts");
  if (value == nullptr) return {};
  const auto is_text = [](const nlohmann::json& item) {
    return item.is_string() && !item.get_ref<const std::string&>().empty();
  };
  if (value->is_object() && std::all_of(value->begin(), value->end(), is_text))
    return value->get<std::map<std::string, std::string>>();
  RefuseLast(*value);
  return {};
}

std::string TaskOptions::Choice(const std::string& name, const std::string& fallback,
                                const std::vector<std::string>& allowed) {
  const nlohmann::json* value = Find(name, fallback, absl::StrJoin(allowed, ", "));
  if (value == nullptr) return fallback;
  if (value->is_string() && std::find(allowed.begin(), allowed.end(), value->get<std::string>()) != allowed.end()) {
    return value->get<std::string>();
  }
  RefuseLast(*value);
  return fallback;
}

std::vector<int64_t> TaskOptions::Integers(const std::string& name, std::vector<int64_t> fallback, int64_t min,
                                           int64_t max, size_t max_count) {
  const nlohmann::json* value = Find(
      name, ListText(fallback), absl::StrCat("integer from ", min, " to ", max, ", or a list of at most ", max_count));
  if (value == nullptr) return fallback;
  auto fits = [&](const nlohmann::json& item) { return item.is_number_integer() && item >= min && item <= max; };
  if (fits(*value)) return {value->get<int64_t>()};
  if (value->is_array() && value->size() <= max_count && std::all_of(value->begin(), value->end(), fits)) {
    return value->get<std::vector<int64_t>>();
  }
  RefuseLast(*value);
  return fallback;
}

absl::Status TaskOptions::Check() const {
  std::vector<std::string> mistakes = mistakes_, known;
  for (const TaskOptionNote& option : asked_) known.push_back(option.name);
  if (options_.is_object()) {
    for (const auto& item : options_.items()) {
      if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
      mistakes.push_back(absl::StrCat("task.options.", item.key(), ": ", UnknownKeyMessage(item.key(), known)));
    }
  }
  if (probe != nullptr) probe->notes_ = asked_;
  if (!mistakes.empty()) return absl::InvalidArgumentError(absl::StrJoin(mistakes, "; "));
  if (probe == nullptr) return absl::OkStatus();
  absl::Status stopped = absl::CancelledError("the options are good; only they were asked for");
  stopped.SetPayload(kProbed, absl::Cord());
  return stopped;
}

absl::Status TaskOptions::Check(const std::function<absl::Status()>& look) const {
  const absl::Status options = Check();
  if (!TaskOptionsProbe::Stopped(options)) return options;
  const absl::Status files = look();
  return files.ok() || absl::IsNotFound(files) ? options : files;
}

}  // namespace athanor

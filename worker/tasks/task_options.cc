#include "athanor/task/task_options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/config/reflection.h"

namespace athanor {

TaskOptions::TaskOptions(std::string task, const nlohmann::json& options) : task_(std::move(task)), options_(options) {
  if (!options_.is_null() && !options_.is_object()) {
    mistakes_.push_back(absl::StrCat("task.options: found ", DescribeJson(options_), "; allowed: a mapping"));
  }
}

const nlohmann::json* TaskOptions::Find(const std::string& name) {
  known_.push_back(name);
  if (!options_.is_object()) return nullptr;
  auto found = options_.find(name);
  return found == options_.end() || found->is_null() ? nullptr : &*found;
}

void TaskOptions::Refuse(const std::string& name, const nlohmann::json& found, const std::string& allowed) {
  mistakes_.push_back(absl::StrCat("task.options.", name, ": found ", DescribeJson(found), "; allowed: ", allowed));
}

void TaskOptions::Complain(const std::string& name, const std::string& what) {
  mistakes_.push_back(absl::StrCat("task.options.", name, ": ", what));
}

int64_t TaskOptions::Integer(const std::string& name, int64_t fallback, int64_t min, int64_t max) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_number_integer() && *value >= min && *value <= max) return value->get<int64_t>();
  Refuse(name, *value, absl::StrCat("integer from ", min, " to ", max));
  return fallback;
}

double TaskOptions::Number(const std::string& name, double fallback, double min, double max) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_number() && value->get<double>() >= min && value->get<double>() <= max) return value->get<double>();
  Refuse(name, *value, absl::StrCat("number from ", min, " to ", max));
  return fallback;
}

bool TaskOptions::Flag(const std::string& name, bool fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Refuse(name, *value, "true or false");
  return fallback;
}

std::string TaskOptions::Text(const std::string& name, const std::string& fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  Refuse(name, *value, "text");
  return fallback;
}

std::string TaskOptions::RequiredText(const std::string& name) {
  const nlohmann::json* value = Find(name);
  if (value != nullptr && value->is_string() && !value->get_ref<const std::string&>().empty()) {
    return value->get<std::string>();
  }
  if (value == nullptr) {
    Complain(name, absl::StrCat("missing; ", task_, " needs it"));
  } else {
    Refuse(name, *value, "text, not empty");
  }
  return "";
}

std::map<std::string, std::string> TaskOptions::Texts(const std::string& name) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return {};
  const auto is_text = [](const nlohmann::json& item) {
    return item.is_string() && !item.get_ref<const std::string&>().empty();
  };
  if (value->is_object() && std::all_of(value->begin(), value->end(), is_text))
    return value->get<std::map<std::string, std::string>>();
  Refuse(name, *value, "a mapping of names to texts");
  return {};
}

std::string TaskOptions::Choice(const std::string& name, const std::string& fallback,
                                const std::vector<std::string>& allowed) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_string() && std::find(allowed.begin(), allowed.end(), value->get<std::string>()) != allowed.end()) {
    return value->get<std::string>();
  }
  Refuse(name, *value, absl::StrJoin(allowed, ", "));
  return fallback;
}

std::vector<int64_t> TaskOptions::Integers(const std::string& name, std::vector<int64_t> fallback, int64_t min,
                                           int64_t max, size_t max_count) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  auto fits = [&](const nlohmann::json& item) { return item.is_number_integer() && item >= min && item <= max; };
  if (fits(*value)) return {value->get<int64_t>()};
  if (value->is_array() && value->size() <= max_count && std::all_of(value->begin(), value->end(), fits)) {
    return value->get<std::vector<int64_t>>();
  }
  Refuse(name, *value, absl::StrCat("integer from ", min, " to ", max, ", or a list of at most ", max_count));
  return fallback;
}

absl::Status TaskOptions::Check() const {
  std::vector<std::string> mistakes = mistakes_;
  if (options_.is_object()) {
    for (const auto& item : options_.items()) {
      if (std::find(known_.begin(), known_.end(), item.key()) != known_.end()) continue;
      mistakes.push_back(absl::StrCat("task.options.", item.key(), ": ", UnknownKeyMessage(item.key(), known_)));
    }
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "; "));
}

}  // namespace athanor

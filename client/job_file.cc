#include "client/job_file.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "athanor/base/status_macros.h"
#include "athanor/config/config_loader.h"
#include "client/yaml_document.h"

namespace athanor {
namespace {

using nlohmann::json;

const std::vector<std::string> kCauses = {"user_code", "out_of_memory", "signal",        "node_lost",
                                          "hang",      "preempted",     "data",          "nan_loss",
                                          "peer_lost", "our_bug",       "launch_failed", "invalid"};

class JobReader {
 public:
  JobReader(std::string path, YamlDocument document) : path_(std::move(path)), document_(std::move(document)) {
    for (const std::string& problem : document_.problems) problems_.push_back(absl::StrCat(path_, ":", problem));
  }

  void Override(const std::string& assignment) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      problems_.push_back(absl::StrCat("--set ", assignment, ": expected field=value, as in runner.optim.lr=0.1"));
      return;
    }
    const std::string field = assignment.substr(0, equals);
    if (absl::Status status = ApplyOverride(document_.value, field, assignment.substr(equals + 1)); !status.ok()) {
      problems_.push_back(absl::StrCat("--set ", assignment, ": ", std::string(status.message())));
    }
    overridden_.insert(field);
  }

  absl::StatusOr<v1::JobSpec> Read() {
    const json& root = document_.value;
    Known(root, "",
          {"name", "labels", "task", "resources", "priority", "preemptible", "runner", "restart", "timeouts", "env",
           "parent"});
    spec_.set_name(Text(root, "name", true));
    if (!spec_.name().empty()) CheckName();
    ReadLabels(root);
    ReadTask(Section(root, "task", true));
    ReadResources(Section(root, "resources", false));
    spec_.set_priority(static_cast<int32_t>(Integer(root, "priority", "priority", 0, -1000, 1000)));
    spec_.set_preemptible(Bool(root, "preemptible"));
    ReadRunner(Section(root, "runner", true));
    ReadRestart(Section(root, "restart", false));
    ReadTimeouts(Section(root, "timeouts", false));
    ReadEnv(Section(root, "env", false));
    const json parent = Section(root, "parent", false);
    Known(parent, "parent", {"job", "checkpoint"});
    spec_.set_parent_job(Text(parent, "job", false, "parent.job"));
    spec_.set_parent_checkpoint(Text(parent, "checkpoint", false, "parent.checkpoint"));
    if (!problems_.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems_, "\n"));
    return spec_;
  }

 private:
  void Problem(const std::string& field, const std::string& text) {
    for (const std::string& set : overridden_) {
      if (field == set || absl::StartsWith(field, set + ".")) {
        problems_.push_back(absl::StrCat("--set ", set, ": ", field, ": ", text));
        return;
      }
    }
    // The nearest place that the file has: a missing field is reported where it belongs.
    std::string at = absl::StrReplaceAll(field, {{"[", "."}, {"]", ""}});  // elements of lists: "groups.0" in places
    while (!at.empty() && !document_.places.contains(at))
      at = at.rfind('.') == std::string::npos ? "" : at.substr(0, at.rfind('.'));
    const Place place = document_.places.contains(at) ? document_.places.at(at) : Place{1, 1};
    problems_.push_back(absl::StrCat(path_, ":", place.line, ":", place.column, ": ", field, ": ", text));
  }

  static std::string Found(const json& value) {
    std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    if (text.size() > 64) text = text.substr(0, 61) + "...";
    return absl::StrCat("found ", text, " (", value.is_number_integer() ? "integer" : value.type_name(), ")");
  }

  void Known(const json& object, const std::string& path, const std::vector<std::string>& names) {
    if (!object.is_object()) return;
    for (const auto& [key, value] : object.items()) {
      if (std::find(names.begin(), names.end(), key) != names.end()) continue;
      Problem(path.empty() ? key : absl::StrCat(path, ".", key), UnknownKeyMessage(key, names));
    }
  }

  json Section(const json& root, const char* name, bool required) {
    auto it = root.find(name);
    if (it == root.end() || it->is_null()) {
      if (required) Problem(name, "is missing");
      return json::object();
    }
    if (it->is_object()) return *it;
    Problem(name, absl::StrCat(Found(*it), "; allowed: a map of fields"));
    return json::object();
  }

  std::string Text(const json& object, const char* key, bool required, const std::string& path = "") {
    const std::string field = path.empty() ? key : path;
    auto it = object.find(key);
    if (it == object.end() || (it->is_null() && !required)) {
      if (required) Problem(field, "is missing");
      return {};
    }
    if (it->is_number_integer() && !required) return it->dump();
    if (!it->is_string()) {
      Problem(field, absl::StrCat(Found(*it), "; allowed: text"));
      return {};
    }
    if (required && it->get<std::string>().empty()) Problem(field, "found \"\"; allowed: text that is not empty");
    return it->get<std::string>();
  }

  int64_t Integer(const json& object, const char* key, const std::string& field, int64_t otherwise, int64_t low,
                  int64_t high) {
    auto it = object.find(key);
    if (it == object.end()) return otherwise;
    const bool integer =
        it->is_number_integer() && !(it->is_number_unsigned() && it->get<uint64_t>() > static_cast<uint64_t>(1) << 62);
    if (integer && it->get<int64_t>() >= low && it->get<int64_t>() <= high) return it->get<int64_t>();
    Problem(field, absl::StrCat(Found(*it), "; allowed: integer from ", low, " to ", high));
    return otherwise;
  }

  bool Bool(const json& object, const char* key) {
    auto it = object.find(key);
    if (it == object.end()) return false;
    if (it->is_boolean()) return it->get<bool>();
    Problem(key, absl::StrCat(Found(*it), "; allowed: true, false"));
    return false;
  }

  void Duration(const json& object, const char* key, const std::string& field,
                google::protobuf::Duration* (*make)(v1::JobSpec&), v1::JobSpec& spec) {
    auto it = object.find(key);
    if (it == object.end()) return;
    absl::Duration value;
    const bool good = it->is_string() && absl::ParseDuration(it->get<std::string>(), &value) &&
                      value > absl::ZeroDuration() && value <= absl::Hours(24 * 30);
    if (!good)
      return Problem(field, absl::StrCat(Found(*it), "; allowed: a duration such as 200ms, 10s or 5m, up to 720h"));
    google::protobuf::Duration* proto = make(spec);
    proto->set_seconds(absl::IDivDuration(value, absl::Seconds(1), &value));
    proto->set_nanos(static_cast<int32_t>(absl::IDivDuration(value, absl::Nanoseconds(1), &value)));
  }

  void CheckName() {
    const std::string& name = spec_.name();
    auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
    bool good = name.size() <= 63 && alnum(name.front()) && alnum(name.back());
    for (const char c : name) good = good && (alnum(c) || c == '-' || c == '.' || c == '_');
    if (!good)
      Problem("name", absl::StrCat(Found(json(name)), "; allowed: [a-z0-9]([-a-z0-9._]*[a-z0-9])?, at most 63 bytes"));
  }

  void ReadLabels(const json& root) {
    const json labels = Section(root, "labels", false);
    for (const auto& [key, value] : labels.items()) {
      if (value.is_string() || value.is_number() || value.is_boolean()) {
        (*spec_.mutable_labels())[key] = value.is_string() ? value.get<std::string>() : value.dump();
      } else {
        Problem(absl::StrCat("labels.", key), absl::StrCat(Found(value), "; allowed: text"));
      }
    }
  }

  std::string Resolve(const std::string& path) const {
    if (path.empty() || path[0] == '/') return path;
    std::error_code error;
    const std::filesystem::path base = std::filesystem::absolute(path_, error).parent_path();
    return (base / path).lexically_normal().string();
  }

  void ReadTask(const json& task) {
    Known(task, "task", {"name", "library", "options"});
    if (!task.empty()) spec_.mutable_task()->set_name(Text(task, "name", true, "task.name"));
    spec_.mutable_task()->set_library(Resolve(Text(task, "library", false, "task.library")));
    auto it = task.find("options");
    json options = it == task.end() || it->is_null() ? json::object() : *it;
    if (!options.is_object())
      return Problem("task.options", absl::StrCat(Found(options), "; allowed: a map of fields"));
    for (auto& [key, value] : options.items()) {
      for (const char* ending : {"data", "file", "path", "module", "package"}) {
        if (value.is_string() && absl::EndsWith(key, ending)) {
          value = Resolve(value.get<std::string>());
          break;
        }
      }
    }
    spec_.mutable_task()->set_options_json(options.dump(-1, ' ', false, json::error_handler_t::replace));
  }

  void ReadResources(const json& resources) {
    Known(resources, "resources", {"ranks", "slots_per_rank", "device", "threads_per_rank"});
    v1::ResourceRequest& request = *spec_.mutable_resources();
    request.set_ranks(static_cast<int32_t>(Integer(resources, "ranks", "resources.ranks", 1, 1, 4096)));
    request.set_slots_per_rank(
        static_cast<int32_t>(Integer(resources, "slots_per_rank", "resources.slots_per_rank", 1, 1, 64)));
    request.set_threads_per_rank(
        static_cast<int32_t>(Integer(resources, "threads_per_rank", "resources.threads_per_rank", 1, 1, 1024)));
    const std::string device = Text(resources, "device", false, "resources.device");
    if (!device.empty() && device != "cpu" && device != "cuda")
      Problem("resources.device", absl::StrCat(Found(json(device)), "; allowed: cpu, cuda"));
    request.set_device(device.empty() ? "cpu" : device);
  }

  void ReadRunner(const json& runner) {
    RunnerConfig config;
    if (document_.value.contains("runner")) {
      for (const FieldProblem& problem : CheckRunnerConfig(runner, &config))
        Problem(problem.path.empty() ? "runner" : absl::StrCat("runner.", problem.path), problem.message);
    }
    spec_.set_runner_json(runner.dump(-1, ' ', false, json::error_handler_t::replace));
  }

  void ReadRestart(const json& restart) {
    Known(restart, "restart",
          {"budgets", "backoff_initial", "backoff_max", "backoff_jitter", "max_generations_without_progress"});
    v1::RestartPolicy& policy = *spec_.mutable_restart();
    auto budgets = restart.find("budgets");
    if (budgets != restart.end() && !budgets->is_object())
      Problem("restart.budgets", absl::StrCat(Found(*budgets), "; allowed: a map from cause to number"));
    if (budgets != restart.end() && budgets->is_object()) {
      Known(*budgets, "restart.budgets", kCauses);
      for (const std::string& cause : kCauses) {
        if (budgets->contains(cause)) {
          (*policy.mutable_budgets())[cause] = static_cast<int32_t>(
              Integer(*budgets, cause.c_str(), absl::StrCat("restart.budgets.", cause), 0, -1, 1000000));
        }
      }
    }
    Duration(
        restart, "backoff_initial", "restart.backoff_initial",
        [](v1::JobSpec& spec) { return spec.mutable_restart()->mutable_backoff_initial(); }, spec_);
    Duration(
        restart, "backoff_max", "restart.backoff_max",
        [](v1::JobSpec& spec) { return spec.mutable_restart()->mutable_backoff_max(); }, spec_);
    policy.set_backoff_jitter(0.2);
    if (auto jitter = restart.find("backoff_jitter"); jitter != restart.end()) {
      const double value = jitter->is_number() ? jitter->get<double>() : -1;
      if (value < 0 || value > 1)
        Problem("restart.backoff_jitter", absl::StrCat(Found(*jitter), "; allowed: number from 0 to 1"));
      policy.set_backoff_jitter(value);
    }
    policy.set_max_generations_without_progress(static_cast<int32_t>(Integer(
        restart, "max_generations_without_progress", "restart.max_generations_without_progress", 0, 0, 1000000)));
  }

  void ReadTimeouts(const json& timeouts) {
    Known(timeouts, "timeouts", {"join", "startup", "hang", "stop_grace"});
    Duration(
        timeouts, "join", "timeouts.join", [](v1::JobSpec& spec) { return spec.mutable_timeouts()->mutable_join(); },
        spec_);
    Duration(
        timeouts, "startup", "timeouts.startup",
        [](v1::JobSpec& spec) { return spec.mutable_timeouts()->mutable_startup(); }, spec_);
    Duration(
        timeouts, "hang", "timeouts.hang", [](v1::JobSpec& spec) { return spec.mutable_timeouts()->mutable_hang(); },
        spec_);
    Duration(
        timeouts, "stop_grace", "timeouts.stop_grace",
        [](v1::JobSpec& spec) { return spec.mutable_timeouts()->mutable_stop_grace(); }, spec_);
  }

  void ReadEnv(const json& env) {
    for (const auto& [name, value] : env.items()) {
      const std::string field = absl::StrCat("env.", name);
      const bool named = !name.empty() &&
                         name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") ==
                             std::string::npos &&
                         !(name[0] >= '0' && name[0] <= '9');
      if (!named) Problem(field, "a name has letters, digits and _, and does not start with a digit");
      std::string text;
      if (value.is_string()) {
        text = value.get<std::string>();
      } else if (value.is_number() || value.is_boolean()) {
        text = value.dump();
      } else if (value.is_object() && value.size() == 1 && value.contains("from_env") &&
                 value["from_env"].is_string()) {
        const char* found = std::getenv(value["from_env"].get<std::string>().c_str());
        if (found == nullptr)
          Problem(field, absl::StrCat("the environment has no ", value["from_env"].get<std::string>()));
        text = found == nullptr ? "" : found;
      } else if (value.is_object() && value.size() == 1 && value.contains("from_file") &&
                 value["from_file"].is_string()) {
        std::ifstream file(Resolve(value["from_file"].get<std::string>()));
        std::ostringstream contents;
        contents << file.rdbuf();
        if (!file) Problem(field, absl::StrCat("cannot read ", Resolve(value["from_file"].get<std::string>())));
        text = std::string(absl::StripSuffix(contents.str(), "\n"));
      } else {
        Problem(field,
                absl::StrCat("found ", value.type_name(), "; allowed: text, {from_env: NAME} or {from_file: path}"));
      }
      (*spec_.mutable_env())[name] = text;
    }
  }

  const std::string path_;
  YamlDocument document_;
  std::set<std::string> overridden_;
  std::vector<std::string> problems_;
  v1::JobSpec spec_;
};

}  // namespace

absl::StatusOr<v1::JobSpec> ParseJobFile(const std::string& path, const std::string& text,
                                         const std::vector<std::string>& overrides) {
  absl::StatusOr<YamlDocument> document = ParseYaml(text);
  if (!document.ok())
    return absl::InvalidArgumentError(absl::StrCat(path, ":", std::string(document.status().message())));
  JobReader reader(path, *std::move(document));
  for (const std::string& assignment : overrides) reader.Override(assignment);
  return reader.Read();
}

absl::StatusOr<v1::JobSpec> LoadJobFile(const std::string& path, const std::vector<std::string>& overrides) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a folder, not a job file"));
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(2) << 20, '\0');
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseJobFile(path, text, overrides);
}

}  // namespace athanor

#include "client/job_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/derived_options.h"
#include "athanor/config/job_rules.h"
#include "athanor/contract/failure_cause.h"
#include "athanor/contract/job_limits.h"
#include "client/yaml_document.h"
#include "common/service/home_path.h"

namespace athanor {
namespace {

using nlohmann::json;

constexpr absl::string_view kLabels = "labels.";
constexpr char kStandardInput[] = "standard input";

class JobReader {
 public:
  JobReader(std::string path, YamlDocument document) : path_(std::move(path)), document_(std::move(document)) {
    for (const YamlProblem& one : document_.problems) {
      if (one.as_number && IsTextField(one.path)) continue;
      problems_.push_back(absl::StrCat(path_, ":", one.place.line, ":", one.place.column, ": ",
                                       one.path.empty() ? "" : one.path + ": ", one.text));
    }
  }

  void Override(const std::string& assignment) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      problems_.push_back(absl::StrCat("--set ", assignment, ": expected field=value, as in runner.optim.lr=0.1"));
      return;
    }
    const std::string field = assignment.substr(0, equals), text = assignment.substr(equals + 1);
    json flow = ParseFlow(text);
    // The braces of a text stay text: only {from_env: …} and {from_file: …} mean something there.
    if (IsTextField(field) && !(flow.contains("from_env") || flow.contains("from_file"))) flow = nullptr;
    const absl::Status status = absl::StartsWith(field, kLabels)
                                    ? OverrideLabel(field, text)
                                    : ApplyOverride(document_.value, field, flow.is_null() ? text : flow.dump());
    if (!status.ok()) problems_.push_back(absl::StrCat("--set ", assignment, ": ", std::string(status.message())));
    overridden_.insert(field);
    KeepTexts(field, text, flow.is_structured());
  }

  absl::StatusOr<v1::JobSpec> Read() {
    const json& root = document_.value;
    Known(root, "", JobKeys(""));
    spec_.set_name(Text(root, "name", true));
    if (!spec_.name().empty()) CheckName();
    ReadLabels(root);
    ReadTask(Section(root, "task", true));
    ReadResources(Section(root, "resources", false));
    spec_.set_priority(static_cast<int32_t>(Integer(root, "priority", "priority")));
    spec_.set_preemptible(Bool(root, "preemptible"));
    ReadRunner(Section(root, "runner", true));
    ReadRestart(Section(root, "restart", false));
    ReadTimeouts(Section(root, "timeouts", false));
    ReadFencing(root);
    ReadEnv(Section(root, "env", false));
    spec_.set_log_format(Text(root, "log_format", false));
    CheckChoice("log_format", spec_.log_format());
    ReadParent(Section(root, "parent", false));
    if (!problems_.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems_, "\n"));
    return spec_;
  }

 private:
  void Problem(const std::string& field, const std::string& problem) {
    // Elements of lists: "groups[0]" is "groups.0" in places and texts.
    std::string at = absl::StrReplaceAll(field, {{"[", "."}, {"]", ""}});
    const std::string text = AsWritten(document_, at, problem);
    for (const std::string& set : overridden_) {
      const bool made_it = absl::StartsWith(set, field + ".") && !document_.places.contains(field);
      if (field == set || absl::StartsWith(field, set + ".") || made_it) {
        problems_.push_back(absl::StrCat("--set ", set, ": ", field, ": ", text));
        return;
      }
    }
    // The nearest place that the file has: a missing field is reported where it belongs.
    while (!at.empty() && !document_.places.contains(at))
      at = at.rfind('.') == std::string::npos ? "" : at.substr(0, at.rfind('.'));
    const Place place = document_.places.contains(at) ? document_.places.at(at) : Place{1, 1};
    problems_.push_back(absl::StrCat(path_, ":", place.line, ":", place.column, ": ", field, ": ", text));
  }

  // Fields whose plain scalars are text however they look: 3.10 and 01234 are no numbers there.
  static bool IsTextField(const std::string& path) {
    return absl::StartsWith(path, kLabels) || absl::StartsWith(path, "env.") || absl::StartsWith(path, "parent.");
  }

  // Names of labels have dots: all behind "labels." is the name.
  absl::Status OverrideLabel(const std::string& field, const std::string& text) {
    if (!IsUtf8(field) || !IsUtf8(text)) return absl::InvalidArgumentError("not UTF-8");
    json& labels = document_.value["labels"];
    if (labels.is_null()) labels = json::object();
    if (!labels.is_object()) return absl::InvalidArgumentError(absl::StrCat("labels: ", Found(labels)));
    const json literal = ParseJsonText(text);
    labels[field.substr(kLabels.size())] = literal.is_string() ? literal : json(text);
    return absl::OkStatus();
  }

  // What an override wrote, as it was written.
  void KeepTexts(const std::string& field, const std::string& text, bool flow) {
    std::erase_if(document_.texts, [&](const auto& entry) {
      return entry.first == field || absl::StartsWith(entry.first, field + ".");
    });
    const json literal = ParseJsonText(text);
    if (flow || literal.is_structured()) {
      if (const absl::StatusOr<YamlDocument> below = ParseYaml(text); below.ok()) {
        for (const auto& [path, written] : below->texts) document_.texts[absl::StrCat(field, ".", path)] = written;
      }
    } else if (!literal.is_string()) {
      document_.texts[field] = text;
    }
  }

  // A scalar as text, in the spelling of the file.
  std::optional<std::string> Written(const json& value, const std::string& path) const {
    if (value.is_string()) return value.get<std::string>();
    const auto written = document_.texts.find(path);
    if (written == document_.texts.end() || value.is_structured()) return std::nullopt;
    return written->second;
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
    if (IsTextField(field)) {
      if (const auto written = Written(*it, field)) return *written;
    }
    if (!it->is_string()) {
      Problem(field, absl::StrCat(Found(*it), "; allowed: text"));
      return {};
    }
    if (required && it->get<std::string>().empty()) Problem(field, "found \"\"; allowed: text that is not empty");
    return it->get<std::string>();
  }

  // As the table says, which may call the field by a star: "restart.budgets.*".
  int64_t Integer(const json& object, const char* key, const std::string& field, const std::string& in_table = "") {
    const JobField& rule = JobFieldAt(in_table.empty() ? field : in_table);
    int64_t otherwise = 0;
    (void)absl::SimpleAtoi(rule.fallback, &otherwise);
    auto it = object.find(key);
    if (it == object.end()) return otherwise;
    const bool integer =
        it->is_number_integer() && !(it->is_number_unsigned() && it->get<uint64_t>() > static_cast<uint64_t>(1) << 62);
    if (integer && InRange(rule, static_cast<double>(it->get<int64_t>()))) return it->get<int64_t>();
    Problem(field, absl::StrCat(Found(*it), "; allowed: integer from ", rule.low(), " to ", rule.high()));
    return otherwise;
  }

  void CheckChoice(const std::string& field, const std::string& text) {
    const JobField& rule = JobFieldAt(field);
    if (!text.empty() && !IsChoice(rule, text))
      Problem(field, absl::StrCat(Found(json(text)), "; allowed: ", AllowedChoices(rule)));
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
                      value > absl::ZeroDuration() && value <= kMaxJobDuration;
    if (!good)
      return Problem(field, absl::StrCat(Found(*it), "; allowed: a duration such as 200ms, 10s or 5m, up to 720h"));
    google::protobuf::Duration* proto = make(spec);
    proto->set_seconds(absl::IDivDuration(value, absl::Seconds(1), &value));
    proto->set_nanos(static_cast<int32_t>(absl::IDivDuration(value, absl::Nanoseconds(1), &value)));
  }

  void CheckName() {
    const std::string& name = spec_.name();
    if (!IsName(name, kMaxNameBytes))
      Problem("name",
              absl::StrCat(Found(json(name)), "; allowed: ", kNamePattern, ", at most ", kMaxNameBytes, " bytes"));
  }

  void CheckCount(const char* field, size_t count) {
    if (count > kMaxMapEntries) Problem(field, absl::StrCat("found ", count, " entries; allowed: ", kMaxMapEntries));
  }

  // The value itself is not shown: it may be a secret.
  void CheckText(const std::string& field, const std::string& text, size_t limit, const std::string& source = "") {
    const std::string from = source.empty() ? "" : absl::StrCat(source, ": ");
    if (text.size() > limit)
      Problem(field, absl::StrCat(from, "found ", text.size(), " bytes; allowed: at most ", limit));
    if (text.find('\0') != std::string::npos) Problem(field, absl::StrCat(from, "holds a NUL byte; allowed: text"));
    if (const size_t bad = FirstByteNotUtf8(text); bad != std::string::npos)
      Problem(field, absl::StrCat(from, "byte ", bad + 1, " is not UTF-8; allowed: UTF-8 text"));
  }

  void ReadLabels(const json& root) {
    const json labels = Section(root, "labels", false);
    CheckCount("labels", labels.size());
    for (const auto& [key, value] : labels.items()) {
      const std::string field = absl::StrCat(kLabels, key);
      const bool printable = std::none_of(key.begin(), key.end(), [](char c) { return absl::ascii_iscntrl(c); });
      if (key.empty() || key.size() > kMaxKeyBytes || !printable)
        Problem(field, absl::StrCat("found a name of ", key.size(), " bytes; allowed: 1 to ", kMaxKeyBytes,
                                    " printable bytes"));
      const std::optional<std::string> text = Written(value, field);
      if (!text.has_value()) {
        Problem(field, absl::StrCat(Found(value), "; allowed: text"));
        continue;
      }
      CheckText(field, *text, kMaxLabelBytes);
      (*spec_.mutable_labels())[key] = *text;
    }
  }

  void ReadParent(const json& parent) {
    Known(parent, "parent", JobKeys("parent"));
    spec_.set_parent_job(Text(parent, "job", false, "parent.job"));
    spec_.set_parent_checkpoint(Text(parent, "checkpoint", false, "parent.checkpoint"));
  }

  std::string Resolve(const std::string& written) const {
    const std::string path = ExpandHome(written);
    if (path.empty() || path[0] == '/') return path;
    std::error_code error;
    const std::filesystem::path base = std::filesystem::absolute(path_, error).parent_path();
    return (base / path).lexically_normal().string();
  }

  // A path, or a list of them.
  void ResolveIn(json& value) const {
    if (value.is_string()) value = Resolve(value.get<std::string>());
    if (value.is_array()) {
      for (json& one : value) {
        if (one.is_string()) one = Resolve(one.get<std::string>());
      }
    }
  }

  void ReadTask(const json& task) {
    Known(task, "task", JobKeys("task"));
    if (!task.empty()) spec_.mutable_task()->set_name(Text(task, "name", true, "task.name"));
    spec_.mutable_task()->set_library(Resolve(Text(task, "library", false, "task.library")));
    auto it = task.find("options");
    json options = it == task.end() || it->is_null() ? json::object() : *it;
    if (!options.is_object())
      return Problem("task.options", absl::StrCat(Found(options), "; allowed: a map of fields"));
    for (auto& [key, value] : options.items()) {
      constexpr std::array kPaths = {"data", "file", "path", "module", "package"};
      if (std::any_of(kPaths.begin(), kPaths.end(), [&](const char* ending) { return absl::EndsWith(key, ending); }))
        ResolveIn(value);
      if (!value.is_object() || !absl::EndsWith(key, "files")) continue;
      for (json& path : value) ResolveIn(path);
    }
    spec_.mutable_task()->set_options_json(options.dump(-1, ' ', false, json::error_handler_t::replace));
  }

  void ReadResources(const json& resources) {
    Known(resources, "resources", JobKeys("resources"));
    v1::ResourceRequest& request = *spec_.mutable_resources();
    request.set_ranks(static_cast<int32_t>(Integer(resources, "ranks", "resources.ranks")));
    request.set_slots_per_rank(static_cast<int32_t>(Integer(resources, "slots_per_rank", "resources.slots_per_rank")));
    request.set_threads_per_rank(
        static_cast<int32_t>(Integer(resources, "threads_per_rank", "resources.threads_per_rank")));
    const std::string device = Text(resources, "device", false, "resources.device");
    CheckChoice("resources.device", device);
    request.set_device(device.empty() ? std::string(JobFieldAt("resources.device").fallback) : device);
  }

  void ReadRunner(json runner) {
    // Files that are read; an address such as s3://… is left as it is.
    for (const char* key : {"pretrained", "resume"}) {
      auto it = runner.find(key);
      if (it != runner.end() && it->is_string() && !absl::StrContains(it->get_ref<const std::string&>(), "://"))
        ResolveIn(*it);
    }
    RunnerConfig config;
    if (document_.value.contains("runner")) {
      for (const FieldProblem& problem : CheckRunnerConfig(runner, &config))
        Problem(problem.path.empty() ? "runner" : absl::StrCat("runner.", problem.path), problem.message);
    }
    if (IsTrainStep(spec_.task().name(), spec_.task().library())) {
      if (const std::string precision = EffectivePrecision(config); precision != "" && precision != "fp32")
        Problem("runner.precision", absl::StrCat(Found(json(precision)), " ", kTrainStepPrecision));
      if (spec_.resources().device() == "cuda")
        Problem("resources.device", absl::StrCat(Found(json("cuda")), " ", kTrainStepDevice));
    }
    const json canonical = problems_.empty() ? CanonicalRunner(runner, config) : runner;
    spec_.set_runner_json(canonical.dump(-1, ' ', false, json::error_handler_t::replace));
  }

  void ReadRestart(const json& restart) {
    Known(restart, "restart", JobKeys("restart"));
    v1::RestartPolicy& policy = *spec_.mutable_restart();
    auto budgets = restart.find("budgets");
    if (budgets != restart.end() && !budgets->is_object())
      Problem("restart.budgets", absl::StrCat(Found(*budgets), "; allowed: a map from cause to number"));
    if (budgets != restart.end() && budgets->is_object()) {
      Known(*budgets, "restart.budgets", CauseNames());
      for (const std::string& cause : CauseNames()) {
        if (budgets->contains(cause)) {
          (*policy.mutable_budgets())[cause] = static_cast<int32_t>(
              Integer(*budgets, cause.c_str(), absl::StrCat("restart.budgets.", cause), "restart.budgets.*"));
        }
      }
    }
    Duration(
        restart, "backoff_initial", "restart.backoff_initial",
        [](v1::JobSpec& spec) { return spec.mutable_restart()->mutable_backoff_initial(); }, spec_);
    Duration(
        restart, "backoff_max", "restart.backoff_max",
        [](v1::JobSpec& spec) { return spec.mutable_restart()->mutable_backoff_max(); }, spec_);
    const JobField& share = JobFieldAt("restart.backoff_jitter");
    double jitter = 0;
    (void)absl::SimpleAtod(share.fallback, &jitter);
    if (const auto given = restart.find("backoff_jitter"); given != restart.end()) {
      jitter = given->is_number() ? given->get<double>() : -1;
      if (!InRange(share, jitter))
        Problem("restart.backoff_jitter",
                absl::StrCat(Found(*given), "; allowed: number from ", share.low(), " to ", share.high()));
    }
    policy.set_backoff_jitter(jitter);
    if (restart.contains("max_generations_without_progress"))  // 0 on the wire: the default
      policy.set_max_generations_without_progress(static_cast<int32_t>(
          Integer(restart, "max_generations_without_progress", "restart.max_generations_without_progress")));
  }

  void ReadTimeouts(const json& timeouts) {
    Known(timeouts, "timeouts", JobKeys("timeouts"));
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

  void ReadFencing(const json& root) {
    const std::string fencing = Text(root, "fencing", false);
    CheckChoice("fencing", fencing);
    spec_.set_fencing(fencing);
  }

  void ReadEnv(const json& env) {
    CheckCount("env", env.size());
    for (const auto& [name, value] : env.items()) {
      const std::string field = absl::StrCat("env.", name);
      const bool named = !name.empty() &&
                         name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") ==
                             std::string::npos &&
                         !(name[0] >= '0' && name[0] <= '9');
      if (!named) Problem(field, "a name has letters, digits and _, and does not start with a digit");
      if (name.size() > kMaxKeyBytes)
        Problem(field, absl::StrCat("found a name of ", name.size(), " bytes; allowed: at most ", kMaxKeyBytes));
      const auto given = [&value](const char* way) {
        return value.is_object() && value.size() == 1 && value.contains(way) && value[way].is_string();
      };
      std::string text, source;
      if (const std::optional<std::string> written = Written(value, field)) {
        text = *written;
      } else if (given("from_env")) {
        source = value["from_env"].get<std::string>();
        const char* found = std::getenv(source.c_str());
        if (found == nullptr) Problem(field, absl::StrCat("the environment has no ", source));
        text = found == nullptr ? "" : found;
      } else if (given("from_file")) {
        source = Resolve(value["from_file"].get<std::string>());
        text = ReadEnvFile(field, source);
      } else {
        Problem(field,
                absl::StrCat("found ", value.type_name(), "; allowed: text, {from_env: NAME} or {from_file: path}"));
      }
      CheckText(field, text, kMaxEnvBytes, source);
      (*spec_.mutable_env())[name] = text;
    }
  }

  // Without the newline at its end. Never reads more than tells that it is too long.
  std::string ReadEnvFile(const std::string& field, const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
      Problem(field, absl::StrCat("cannot read ", path, ": it is a folder; allowed: a file"));
      return "";
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      Problem(field, absl::StrCat("cannot read ", path, ": ", strerror(errno)));
      return "";
    }
    std::string text(kMaxEnvBytes + 2, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (file.bad()) Problem(field, absl::StrCat("cannot read ", path));
    text.resize(static_cast<size_t>(file.gcount()));
    return std::string(absl::StripSuffix(text, "\n"));
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
  std::string text(static_cast<size_t>(2) << 20, '\0');
  if (path == "-") {
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(std::cin.gcount()));
    return ParseJobFile(kStandardInput, text, overrides);
  }
  if (std::filesystem::is_directory(path, error))
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a folder, not a job file"));
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read: ", strerror(errno)));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseJobFile(path, text, overrides);
}

}  // namespace athanor

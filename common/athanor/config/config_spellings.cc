#include "athanor/config/config_spellings.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace athanor {
namespace {

using nlohmann::json;

struct Pair {
  absl::string_view typed, canonical;
};

constexpr std::array<Pair, 33> kPairs = {{
    {"score_split", "score.split"},
    {"score_name", "score.name"},
    {"score.metric", "score.name"},
    {"score.patience", "patience"},
    {"evaluate_splits", "evaluate.splits"},
    {"backend", "comm.backend"},
    {"init_method", "comm.init_method"},
    {"dist.backend", "comm.backend"},
    {"dist.init_method", "comm.init_method"},
    {"dist.init_timeout_seconds", "comm.init_timeout_seconds"},
    {"dist.train_timeout_seconds", "comm.train_timeout_seconds"},
    {"ddp.find_unused_parameters", "comm.find_unused_parameters"},
    {"workspace.root", "workspace_root"},
    {"workspace.lineage", "lineage"},
    {"workspace.experiment", "experiment"},
    {"workspace.dir", "dir"},
    {"logging.enabled", "log"},
    {"logging.interval", "log_interval"},
    {"logging.file", "log_file"},
    {"tensorboard.enabled", "tensorboard"},
    {"heartbeat.dir", "heartbeat.dir_name"},
    {"ckpt.backend", "checkpoint.backend"},
    {"ckpt.dir", "checkpoint_dir"},
    {"ckpt.interval", "checkpoint.interval"},
    {"ckpt.keep_latest_k", "checkpoint.keep_latest_k"},
    {"ckpt.async_mode", "checkpoint.async_mode"},
    {"ckpt.export_dtype", "checkpoint.export_dtype"},
    {"ckpt.wait_timeout_seconds", "checkpoint.wait_timeout"},
    {"ckpt.exclude_from_loading", "checkpoint.exclude_from_loading"},
    {"ckpt.async_enabled", "checkpoint.async_enabled"},
    {"ckpt.fail_on_error", "checkpoint.fail_on_error"},
    {"ckpt.load_only", "checkpoint.load_only"},
    {"ckpt.last_save_model_only", "checkpoint.last_save_model_only"},
}};

constexpr std::array<absl::string_view, 3> kOtherTrainers = {"wandb", "ft", "deepspeed"};
constexpr std::array<absl::string_view, 2> kListsOfNames = {"train_splits", "evaluate_splits"};

const json* Find(const json& root, absl::string_view path) {
  const json* place = &root;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    if (!place->is_object()) return nullptr;
    const auto found = place->find(std::string(part));
    if (found == place->end()) return nullptr;
    place = &*found;
  }
  return place;
}

// Takes the value out, and sections that are empty then.
json Take(json* root, absl::string_view path) {
  const size_t dot = path.find('.');
  const std::string key(path.substr(0, dot));
  if (dot == absl::string_view::npos) {
    json value = std::move((*root)[key]);
    root->erase(key);
    return value;
  }
  json& section = (*root)[key];
  json value = Take(&section, path.substr(dot + 1));
  if (section.empty()) root->erase(key);
  return value;
}

bool CanHold(const json& root, absl::string_view path) {
  const size_t dot = path.rfind('.');
  if (dot == absl::string_view::npos) return true;
  const json* section = Find(root, path.substr(0, dot));
  return section == nullptr || section->is_object();
}

// A section in place of the one value that it would hold here.
void Unwrap(json* root, absl::string_view typed, absl::string_view canonical, std::vector<Respelling>* done,
            std::vector<FieldProblem>* problems) {
  json value = Take(root, typed);
  if (const json* left = Find(*root, canonical); left != nullptr) {
    for (const auto& [key, unused] : left->items()) {
      problems->push_back(
          {JoinPath(canonical, key), absl::StrCat("unknown key; allowed: ", typed.substr(canonical.size() + 1))});
    }
  }
  (*root)[std::string(canonical)] = std::move(value);
  done->push_back({std::string(typed), std::string(canonical)});
}

void Move(json* root, absl::string_view typed, absl::string_view canonical, std::vector<Respelling>* done,
          std::vector<FieldProblem>* problems) {
  if (absl::StartsWith(typed, absl::StrCat(canonical, "."))) return Unwrap(root, typed, canonical, done, problems);
  if (Find(*root, canonical) != nullptr) {
    problems->push_back({std::string(typed), absl::StrCat("the same option as \"", canonical, "\", which is set too")});
    Take(root, typed);
    return;
  }
  if (!CanHold(*root, canonical)) return;  // the section itself is wrong, and will be refused
  json value = Take(root, typed);
  json* place = root;
  for (const absl::string_view part : absl::StrSplit(canonical, '.')) {
    if (place->is_null()) *place = json::object();
    place = &(*place)[std::string(part)];
  }
  *place = std::move(value);
  done->push_back({std::string(typed), std::string(canonical)});
}

// One name in place of a list, and other trainers' names of the parts.
void SpellParts(json* root) {
  json* parts = const_cast<json*>(Find(*root, "checkpoint.exclude_from_loading"));
  if (parts == nullptr) return;
  if (parts->is_string()) *parts = json::array({*parts});
  if (!parts->is_array()) return;
  for (json& part : *parts) {
    if (part == "dataloaders" || part == "data_loader") part = "dataloader";
    if (part == "lr_scheduler") part = "scheduler";
  }
}

// Other trainers' ways to say "never": a number below zero, and patience without end.
void SpellNever(json* root) {
  for (const absl::string_view path : {"log_interval", "checkpoint.interval"}) {
    json* interval = const_cast<json*>(Find(*root, path));
    if (interval != nullptr && interval->is_number_integer() && interval->get<int64_t>() < 0) *interval = 0;
  }
  json* patience = const_cast<json*>(Find(*root, "patience"));
  if (patience != nullptr && patience->is_number_float() && std::isinf(patience->get<double>())) *patience = nullptr;
}

bool SwitchedOff(const json& section) {
  if (section.is_null()) return true;
  if (!section.is_object()) return false;
  const auto enabled = section.find("enabled");
  return section.empty() || (enabled != section.end() && *enabled == false);
}

}  // namespace

json CanonicalSpellings(json root, std::vector<Respelling>* done, std::vector<FieldProblem>* problems) {
  if (!root.is_object()) return root;
  for (const absl::string_view name : kOtherTrainers) {
    if (const json* section = Find(root, name); section != nullptr && SwitchedOff(*section))
      root.erase(std::string(name));
  }
  for (const absl::string_view name : kListsOfNames) {
    if (const json* names = Find(root, name); names != nullptr && names->is_string())
      root[std::string(name)] = json::array({*names});
  }
  // A switch where others keep a path, and a path where others keep a section.
  if (const json* resume = Find(root, "resume"); resume != nullptr && resume->is_boolean())
    Move(&root, "resume", "auto_resume", done, problems);
  if (const json* checkpoint = Find(root, "checkpoint"); checkpoint != nullptr && checkpoint->is_string())
    Move(&root, "checkpoint", "resume", done, problems);
  for (const Pair& pair : kPairs) {
    if (Find(root, pair.typed) != nullptr) Move(&root, pair.typed, pair.canonical, done, problems);
  }
  // What says nothing is left out.
  for (const char* section : {"parallel", "fsdp"}) {
    if (const json* found = Find(root, section); found != nullptr && found->is_null()) root.erase(section);
  }
  if (const json* policy = Find(root, "fsdp.mp_policy"); policy != nullptr && policy->is_null())
    root["fsdp"].erase("mp_policy");
  SpellParts(&root);
  SpellNever(&root);
  return root;
}

std::string AsTyped(const std::string& path, const std::vector<Respelling>& done) {
  for (const Respelling& respelling : done) {
    if (path == respelling.canonical) return respelling.typed;
    if (absl::StartsWith(respelling.typed, respelling.canonical)) continue;  // it was the section of this name
    if (absl::StartsWith(path, absl::StrCat(respelling.canonical, ".")) ||
        absl::StartsWith(path, absl::StrCat(respelling.canonical, "["))) {
      return respelling.typed + path.substr(respelling.canonical.size());
    }
  }
  return path;
}

std::vector<Respelling> KnownSpellings() {
  std::vector<Respelling> known = {{"resume (true or false)", "auto_resume"}, {"checkpoint (a path)", "resume"}};
  for (const Pair& pair : kPairs) known.push_back({std::string(pair.typed), std::string(pair.canonical)});
  return known;
}

}  // namespace athanor

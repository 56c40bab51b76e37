#include "athanor/runner/state/weight_names.h"

#include <algorithm>
#include <regex>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

using Rules = std::vector<std::pair<std::regex, std::string>>;

// Parts that stand in front of a model's names: keys of saved dictionaries, attributes of wrappers.
bool IsContainer(absl::string_view part) {
  static const std::set<absl::string_view> parts = {
      "state_dict",     "model_state_dict", "model_state",    "model",    "module",    "net",
      "network",        "weights",          "params",         "ema",      "model_ema", "ema_model",
      "ema_state_dict", "params_ema",       "state_dict_ema", "_orig_mod"};
  return parts.count(part) > 0;
}

// Parts that wrappers put between a model's names.
bool IsWrapper(absl::string_view part) {
  return part == "_orig_mod" || part == "_fsdp_wrapped_module" || part == "_checkpoint_wrapped_module" ||
         part == "_forward_module";
}

std::string WithoutWrappers(const std::string& name) {
  std::vector<absl::string_view> parts = absl::StrSplit(name, '.');
  parts.erase(std::remove_if(parts.begin(), parts.end(), IsWrapper), parts.end());
  return absl::StrJoin(parts, ".");
}

absl::StatusOr<Rules> Compiled(const std::vector<std::pair<std::string, std::string>>& rules) {
  Rules compiled;
  for (const auto& [pattern, replacement] : rules) {
    try {
      compiled.emplace_back(std::regex(pattern), replacement);
    } catch (const std::regex_error& error) {
      return absl::InvalidArgumentError(absl::StrCat("rename: '", pattern, "' is no expression: ", error.what()));
    }
  }
  return compiled;
}

std::string Replaced(std::string name, const Rules& rules) {
  for (const auto& [pattern, replacement] : rules) name = std::regex_replace(name, pattern, replacement);
  return name;
}

// A way from a name of the file to one of the module.
struct Way {
  bool unwrapped = false, rules_first = false;
  std::string prefix;

  // False: the name lacks the prefix.
  bool Apply(const std::string& name, const Rules& rules, std::string* mapped) const {
    *mapped = unwrapped ? WithoutWrappers(name) : name;
    if (rules_first) *mapped = Replaced(*mapped, rules);
    if (!absl::StartsWith(*mapped, prefix)) return false;
    mapped->erase(0, prefix.size());
    if (!rules_first) *mapped = Replaced(*mapped, rules);
    return true;
  }
};

// "", "state_dict.", "state_dict.model." of "state_dict.model.fc.weight".
void AddPrefixes(const std::string& name, std::set<std::string>* prefixes) {
  prefixes->insert("");
  for (size_t from = 0, dot = name.find('.'); dot != std::string::npos; from = dot + 1, dot = name.find('.', from)) {
    if (!IsContainer(absl::string_view(name).substr(from, dot - from))) return;
    prefixes->insert(name.substr(0, dot + 1));
  }
}

// In the order of preference.
std::vector<Way> Ways(const std::vector<std::string>& file, const Rules& rules) {
  std::vector<Way> ways;
  for (const bool unwrapped : {false, true}) {
    for (const bool rules_first : {false, true}) {
      if (rules_first && rules.empty()) continue;
      std::set<std::string> prefixes;
      for (const std::string& name : file) {
        const std::string plain = unwrapped ? WithoutWrappers(name) : name;
        AddPrefixes(rules_first ? Replaced(plain, rules) : plain, &prefixes);
      }
      std::vector<std::string> ordered(prefixes.begin(), prefixes.end());
      const auto key = [](const std::string& prefix) {
        return std::tuple(!prefix.empty(), !absl::StrContains(prefix, "ema"), prefix.size(), prefix);
      };
      std::sort(ordered.begin(), ordered.end(),
                [&](const std::string& a, const std::string& b) { return key(a) < key(b); });
      for (std::string& prefix : ordered) ways.push_back({unwrapped, rules_first, std::move(prefix)});
    }
  }
  return ways;
}

size_t Fitting(const Way& way, const std::vector<std::string>& file, const std::set<std::string>& module,
               const Rules& rules) {
  std::set<std::string> found;
  for (const std::string& name : file) {
    std::string mapped;
    if (way.Apply(name, rules, &mapped) && module.count(mapped) > 0) found.insert(std::move(mapped));
  }
  return found.size();
}

}  // namespace

absl::StatusOr<NameMap> MapNames(const std::vector<std::string>& file, const std::set<std::string>& module,
                                 const std::vector<std::pair<std::string, std::string>>& rules) {
  ASSIGN_OR_RETURN(const Rules compiled, Compiled(rules));
  Way best;
  size_t most = Fitting(best, file, module, compiled);
  if (most < module.size()) {
    for (const Way& way : Ways(file, compiled)) {
      const size_t fitting = Fitting(way, file, module, compiled);
      if (fitting <= most) continue;
      best = way;
      most = fitting;
    }
  }
  NameMap map;
  map.prefix = best.prefix;
  std::set<std::string> taken;
  for (const std::string& name : file) {
    std::string mapped;
    if (!best.Apply(name, compiled, &mapped)) continue;
    if (!taken.insert(mapped).second)
      return absl::InvalidArgumentError(absl::StrCat("rename: two tensors of the file become '", mapped, "'"));
    map.names[name] = std::move(mapped);
  }
  for (const std::string& name : file) map.names.try_emplace(name, name);  // without the prefix: of something else
  return map;
}

}  // namespace athanor

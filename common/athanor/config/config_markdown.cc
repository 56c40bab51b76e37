#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "athanor/config/config_loader.h"
#include "athanor/config/config_spellings.h"

namespace athanor {
namespace {

namespace internal = reflection_internal;

template <class T>
std::string KindOf() {
  if constexpr (internal::IsOptional<T>::value) {
    return KindOf<typename T::value_type>();
  } else if constexpr (internal::IsVector<T>::value) {
    return absl::StrCat("list of ", KindOf<typename T::value_type>());
  } else if constexpr (std::is_same_v<T, bool>) {
    return "boolean";
  } else if constexpr (std::is_integral_v<T>) {
    return "integer";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "number";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "string";
  } else {
    return "mapping";
  }
}

std::string Limits(const FieldRule& rule) {
  if (!rule.allowed.empty()) {
    return absl::StrJoin(rule.allowed, ", ", [](std::string* text, absl::string_view choice) {
      const std::vector<absl::string_view> names = absl::StrSplit(choice, '|');
      if (!names.front().empty())
        absl::StrAppend(text, "`", absl::StrJoin(names, "` = `"), "`");
      else
        absl::StrAppend(text, "`\"\"`");
    });
  }
  std::vector<std::string> limits;
  if (std::isfinite(rule.min)) limits.push_back(absl::StrCat(rule.min_open ? "> " : ">= ", NumberText(rule.min)));
  if (std::isfinite(rule.max)) limits.push_back(absl::StrCat(rule.max_open ? "< " : "<= ", NumberText(rule.max)));
  return absl::StrJoin(limits, ", ");
}

std::string DefaultText(const nlohmann::json& value) {
  if (value.is_null()) return "unset";
  if (value.is_number_float()) return absl::StrCat("`", NumberText(value.get<double>()), "`");
  return absl::StrCat("`", value.dump(), "`");
}

void AppendHead(std::string* text, const std::string& title, absl::string_view meaning) {
  absl::StrAppend(text, "\n## ", title, "\n\n", meaning, meaning.empty() ? "" : "\n\n",
                  "| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n");
}

template <DescribedStruct T>
void AppendSection(std::string* text, const std::string& title, const std::string& path, absl::string_view meaning) {
  AppendHead(text, title, meaning);
  const nlohmann::json defaults = StructToJson(T{});
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    using Field = std::remove_cvref_t<decltype(std::declval<T>().*member.pointer)>;
    const FieldRule* rule = FindRule(RulesOf<T>(), member.name);
    if (rule == nullptr || rule->rest || DescribedStruct<Field>) return;
    absl::StrAppend(text, "| `", JoinPath(path, member.name), "` | ", KindOf<Field>(), " | ",
                    DefaultText(defaults.at(member.name)), " | ", Limits(*rule), " | ", rule->meaning,
                    rule->alias.empty() ? "" : absl::StrCat(" Also `", rule->alias, "`."), " |\n");
  });
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>([&](auto member) {
    using Field = std::remove_cvref_t<decltype(std::declval<T>().*member.pointer)>;
    const FieldRule* rule = FindRule(RulesOf<T>(), member.name);
    const std::string below = JoinPath(path, member.name);
    if constexpr (DescribedStruct<Field>) {
      const std::string alias = rule->alias.empty() ? "" : absl::StrCat(" Also spelled `", rule->alias, "`.");
      AppendSection<Field>(text, absl::StrCat("`", below, "`"), below, absl::StrCat(rule->meaning, alias));
    } else if constexpr (internal::IsVector<Field>::value) {
      if constexpr (DescribedStruct<typename Field::value_type>) {
        AppendSection<typename Field::value_type>(text, absl::StrCat("`", below, "[]`"), absl::StrCat(below, "[]"),
                                                  rule->meaning);
      }
    }
  });
}

void AppendTypes(std::string* text, const char* section, std::span<const absl::string_view> types,
                 std::span<const absl::string_view> (*options)(absl::string_view)) {
  absl::StrAppend(text, "\n## Options by `", section,
                  ".type`\n\nAn option of another type is refused.\n\n| type | options |\n|---|---|\n");
  for (absl::string_view type : types) {
    absl::StrAppend(text, "| `", type, "` | `", absl::StrJoin(options(type), "`, `"), "` |\n");
  }
}

}  // namespace

std::string ConfigurationMarkdown() {
  std::string text =
      "# Configuration of a run\n\n"
      "The keys of a job file's `runner`. Generated from `common/athanor/config/runner_config.h`; do not edit: a test "
      "compares it.\n"
      "Unknown keys, wrong types and values out of range are refused with their place. `null` means unset.\n"
      "Words are compared without regard to letter case and with `-` equal to `_`.\n";
  AppendSection<RunnerConfig>(&text, "The run", "", "");
  AppendTypes(&text, "optim", OptimTypes(), &OptimOptionsOf);
  AppendTypes(&text, "sched", SchedTypes(), &SchedOptionsOf);
  absl::StrAppend(&text,
                  "\n## Other spellings\n\nAlso understood, as other versions and trainers write them; one of the two "
                  "may be set.\n\n| written | means |\n|---|---|\n");
  for (const Respelling& pair : KnownSpellings())
    absl::StrAppend(&text, "| `", pair.typed, "` | `", pair.canonical, "` |\n");
  absl::StrAppend(&text,
                  "\n## What may change on resume\n\nA checkpoint is continued only under an equal configuration. "
                  "These keys may differ: ");
  std::vector<std::string> free_keys;
  const nlohmann::json defaults = ToJson(RunnerConfig{});
  for (const auto& [key, value] : defaults.items()) {
    if (MayChangeOnResume(key)) free_keys.push_back(key);
    if (key != "dataloader") continue;
    for (const auto& [below, unused] : value.items()) {
      if (MayChangeOnResume(JoinPath(key, below))) free_keys.push_back(JoinPath(key, below));
    }
  }
  absl::StrAppend(&text, "`", absl::StrJoin(free_keys, "`, `"), "`.\n");
  return text;
}

}  // namespace athanor

#include "athanor/checkpoint/alias_files.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {
namespace {

constexpr int64_t kPointerLimit = 256;
constexpr size_t kAliasLimit = 128;

std::optional<int64_t> PointedAt(const CheckpointStore& store, const std::string& file) {
  const absl::StatusOr<std::string> text = ReadAll(store, file, kPointerLimit);
  if (!text.ok()) return std::nullopt;
  return StepOfDirName(std::string(absl::StripAsciiWhitespace(*text)));
}

}  // namespace

bool IsAliasName(const std::string& alias) {
  if (alias.empty() || alias.size() > kAliasLimit || alias[0] == '.' || StepOfDirName(alias).has_value()) return false;
  return std::all_of(alias.begin(), alias.end(), [](char letter) {
    return absl::ascii_isalnum(static_cast<unsigned char>(letter)) || letter == '.' || letter == '_' || letter == '-';
  });
}

absl::Status PointAlias(const std::string& root, const std::string& alias, int64_t step) {
  if (!IsAliasName(alias)) {
    return absl::InvalidArgumentError(
        absl::StrCat("checkpoint name '", alias, "'; allowed: letters, digits, '.', '_', '-', not '.' first"));
  }
  return StoreAt(root)->Put(alias + kPointerSuffix, absl::StrCat(CheckpointDirName(step), "\n"));
}

void RemoveAlias(const std::string& root, const std::string& alias) {
  if (IsAliasName(alias)) StoreAt(root)->Delete(alias + kPointerSuffix).IgnoreError();
}

std::optional<int64_t> ReadPointer(const std::string& path) {
  const std::string file = absl::EndsWith(path, kPointerSuffix) ? path : absl::StrCat(path, kPointerSuffix);
  const size_t slash = file.rfind('/');
  const std::string root = slash == std::string::npos ? "." : slash == 0 ? "/" : file.substr(0, slash);
  return PointedAt(*StoreAt(root), slash == std::string::npos ? file : file.substr(slash + 1));
}

std::map<std::string, int64_t> ReadAliases(const std::string& root) {
  std::map<std::string, int64_t> aliases;
  const std::shared_ptr<CheckpointStore> store = StoreAt(root);
  for (const std::string& name : store->List("").value_or(std::vector<std::string>())) {
    if (!absl::EndsWith(name, kPointerSuffix)) continue;
    const std::string alias = name.substr(0, name.size() + 1 - sizeof kPointerSuffix);
    const std::optional<int64_t> step = PointedAt(*store, name);
    if (step.has_value() && IsAliasName(alias)) aliases[alias] = *step;
  }
  return aliases;
}

}  // namespace athanor

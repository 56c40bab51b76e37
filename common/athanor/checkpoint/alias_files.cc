#include "athanor/checkpoint/alias_files.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/checkpoint/format/layout.h"

namespace athanor {
namespace {

constexpr size_t kPointerLimit = 256;
constexpr size_t kAliasLimit = 128;

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
  return WriteFileAtomically(absl::StrCat(root, "/", alias, kPointerSuffix),
                             absl::StrCat(CheckpointDirName(step), "\n"));
}

void RemoveAlias(const std::string& root, const std::string& alias) {
  if (IsAliasName(alias)) RemoveFile(absl::StrCat(root, "/", alias, kPointerSuffix));
}

std::optional<int64_t> ReadPointer(const std::string& path) {
  const std::string file = absl::EndsWith(path, kPointerSuffix) ? path : absl::StrCat(path, kPointerSuffix);
  const absl::StatusOr<std::string> text = ReadFile(file, kPointerLimit);
  if (!text.ok()) return std::nullopt;
  return StepOfDirName(std::string(absl::StripAsciiWhitespace(*text)));
}

std::map<std::string, int64_t> ReadAliases(const std::string& root) {
  std::map<std::string, int64_t> aliases;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    const std::string name = entry.path().filename().string();
    if (!absl::EndsWith(name, kPointerSuffix)) continue;
    const std::string alias = name.substr(0, name.size() + 1 - sizeof kPointerSuffix);
    const std::optional<int64_t> step = ReadPointer(entry.path().string());
    if (step.has_value() && IsAliasName(alias)) aliases[alias] = *step;
  }
  return aliases;
}

}  // namespace athanor

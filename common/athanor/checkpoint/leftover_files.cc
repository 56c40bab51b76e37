#include "athanor/checkpoint/leftover_files.h"

#include <filesystem>
#include <optional>

#include "absl/strings/match.h"
#include "athanor/base/file_system.h"
#include "athanor/checkpoint/format/layout.h"

namespace athanor {

std::set<std::string> FilesIn(const std::string& directory) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    names.insert(entry.path().filename().string());
  return names;
}

void RemoveLeftovers(const std::string& directory, const std::set<std::string>& before,
                     const std::vector<ShardInfo>& shards) {
  std::set<std::string> kept;
  for (const ShardInfo& shard : shards) kept.insert(shard.file);
  for (const std::string& name : before) {
    const bool ours = absl::StartsWith(name, "shard-") || absl::EndsWith(name, ".tmp");
    if (ours && !kept.contains(name)) RemoveFile(directory + "/" + name);
  }
}

void RemoveUnfinished(const std::string& root, int64_t step) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    const std::optional<int64_t> found = StepOfDirName(entry.path().filename().string());
    if (!found.has_value() || *found >= step) continue;
    std::error_code unknown;
    if (std::filesystem::exists(entry.path() / kManifestFile, unknown) || unknown) continue;
    std::filesystem::remove_all(entry.path(), unknown);
  }
}

}  // namespace athanor

#include "athanor/checkpoint/leftover_files.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "athanor/checkpoint/format/layout.h"

namespace athanor {

std::set<std::string> FilesIn(const CheckpointStore& store, const std::string& folder) {
  const std::vector<std::string> names = store.List(folder).value_or(std::vector<std::string>());
  return {names.begin(), names.end()};
}

void RemoveLeftovers(CheckpointStore& store, const std::string& folder, const std::set<std::string>& before,
                     const std::vector<ShardInfo>& shards) {
  std::set<std::string> kept;
  for (const ShardInfo& shard : shards) kept.insert(shard.file);
  for (const std::string& name : before) {
    const bool ours = absl::StartsWith(name, "shard-") || absl::EndsWith(name, ".tmp");
    if (ours && !kept.contains(name)) store.Delete(absl::StrCat(folder, "/", name)).IgnoreError();
  }
}

void RemoveUnfinished(CheckpointStore& store, int64_t step) {
  for (const std::string& name : FilesIn(store, "")) {
    const std::optional<int64_t> found = StepOfDirName(std::string(absl::StripSuffix(name, "/")));
    if (!absl::EndsWith(name, "/") || !found.has_value() || *found >= step) continue;
    const absl::StatusOr<bool> whole = Exists(store, absl::StrCat(name, kManifestFile));
    if (whole.ok() && !*whole) store.Delete(name).IgnoreError();
  }
}

}  // namespace athanor

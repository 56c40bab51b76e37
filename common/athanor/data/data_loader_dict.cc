#include "athanor/data/data_loader_dict.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"

namespace athanor {

absl::StatusOr<Batch> StepProxyLoader::Next() {
  RETURN_IF_ERROR(loader_->Skip());
  return Batch{};
}

void DataLoaderDict::Set(const std::string& split, std::unique_ptr<StatefulDataLoader> loader) {
  loaders_[split] = std::move(loader);
}

StatefulDataLoader* DataLoaderDict::Find(const std::string& split) const {
  const auto found = loaders_.find(split);
  return found == loaders_.end() ? nullptr : found->second.get();
}

absl::StatusOr<StatefulDataLoader*> DataLoaderDict::Get(const std::string& split) const {
  if (StatefulDataLoader* loader = Find(split)) return loader;
  return absl::NotFoundError(
      absl::StrCat("no loader for the split \"", split, "\"; there are: ", absl::StrJoin(splits(), ", ")));
}

std::vector<std::string> DataLoaderDict::splits() const {
  std::vector<std::string> names;
  for (const auto& [split, loader] : loaders_) names.push_back(split);
  return names;
}

nlohmann::json DataLoaderDict::StateDict() const {
  nlohmann::json state = nlohmann::json::object();
  for (const auto& [split, loader] : loaders_) {
    if (loader != nullptr) state[split] = loader->StateDict();
  }
  return state;
}

absl::Status DataLoaderDict::LoadStateDict(const nlohmann::json& state) {
  if (!state.is_object()) return absl::InvalidArgumentError("data loader states: found no mapping of splits");
  for (const auto& [split, loader] : loaders_) {
    const auto found = state.find(split);
    if (loader == nullptr || found == state.end() || found->is_null()) continue;
    RETURN_IF_ERROR(Annotate(loader->LoadStateDict(*found), absl::StrCat("split ", split)));
  }
  return absl::OkStatus();
}

}  // namespace athanor

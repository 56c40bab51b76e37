// A CheckpointStore in a folder. An object is a file that appears whole (athanor/base/file_system.h); folders are made
// as they are needed, and go with Delete(). Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {

class LocalStore : public CheckpointStore {
 public:
  // `root` need not be there yet.
  static std::shared_ptr<LocalStore> At(std::string root);

  absl::StatusOr<std::vector<std::string>> List(const std::string& folder) const override;
  absl::StatusOr<int64_t> Size(const std::string& name) const override;
  absl::StatusOr<std::unique_ptr<StoreReader>> Open(const std::string& name) const override;
  absl::Status Put(const std::string& name, std::string_view bytes, PutMode mode) override;
  absl::StatusOr<std::unique_ptr<StoreWriter>> NewWriter(const std::string& name) override;
  absl::Status Copy(const std::string& from, const std::string& to) override;
  absl::Status Delete(const std::string& name) override;
  std::string Describe(const std::string& name) const override;

 private:
  explicit LocalStore(std::string root) : root_(std::move(root)) {}
  const std::string root_;
};

}  // namespace athanor

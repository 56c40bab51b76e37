#include "athanor/checkpoint/store/checkpoint_store.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/store/local_store.h"

namespace athanor {

std::shared_ptr<CheckpointStore> StoreAt(const std::string& root) {
  return LocalStore::At(root);
}

absl::StatusOr<std::string> ReadAll(const CheckpointStore& store, const std::string& name, int64_t limit) {
  ASSIGN_OR_RETURN(const std::unique_ptr<StoreReader> reader, store.Open(name));
  const int64_t size = reader->size();
  if (size > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(store.Describe(name), ": found ", size, " bytes; allowed: at most ", limit));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  RETURN_IF_ERROR(reader->Read(0, size, bytes.data()));
  return bytes;
}

absl::StatusOr<bool> Exists(const CheckpointStore& store, const std::string& name) {
  const absl::Status status = store.Size(name).status();
  if (status.ok()) return true;
  return absl::IsNotFound(status) ? absl::StatusOr<bool>(false) : status;
}

}  // namespace athanor

// Where the bytes of checkpoints live: the only door to them. A name is relative to the store's root, with '/' between
// its parts: "step-000000000120/manifest.json".
//
//   const std::shared_ptr<CheckpointStore> store = StoreAt("/mnt/checkpoints/job-1");
//   RETURN_IF_ERROR(store->Put("step-000000000120/manifest.json", text));
//   ASSIGN_OR_RETURN(const std::string head, ReadAll(*store, name, kLimit));
//
// Errors name the place (Describe()): NOT_FOUND; ALREADY_EXISTS; RESOURCE_EXHAUSTED for no space or no descriptors;
// PERMISSION_DENIED; else INTERNAL. Implementations are thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

// An object in the making. Destruction without Commit() leaves nothing behind.
class StoreWriter {
 public:
  virtual ~StoreWriter() = default;
  virtual absl::Status Append(const void* data, size_t size) = 0;
  virtual absl::Status Sync() = 0;    // what was appended is durable; optional, to spread the work
  virtual absl::Status Commit() = 0;  // the object is there, whole and durable
};

class StoreReader {
 public:
  virtual ~StoreReader() = default;
  virtual int64_t size() const = 0;
  // OUT_OF_RANGE: the object ends before.
  virtual absl::Status Read(int64_t offset, int64_t size, char* to) const = 0;
};

enum class PutMode {
  kReplace,
  kOnlyIfAbsent,  // ALREADY_EXISTS when the name is taken, whoever took it
};

class CheckpointStore {
 public:
  virtual ~CheckpointStore() = default;
  // The names directly in a folder ("" is the root), sorted; those of folders end with '/'. None where there is no such
  // folder.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& folder) const = 0;
  virtual absl::StatusOr<int64_t> Size(const std::string& name) const = 0;
  // Reads ranges of an object, which stays as it was when it was opened, whatever becomes of its name.
  virtual absl::StatusOr<std::unique_ptr<StoreReader>> Open(const std::string& name) const = 0;
  // Atomic and durable: a reader sees the object before or the one after.
  virtual absl::Status Put(const std::string& name, std::string_view bytes, PutMode mode = PutMode::kReplace) = 0;
  // The same for what is too large for one piece of memory. Replaces.
  virtual absl::StatusOr<std::unique_ptr<StoreWriter>> NewWriter(const std::string& name) = 0;
  // A second name for the same bytes, or a copy. OK when `to` is there already.
  virtual absl::Status Copy(const std::string& from, const std::string& to) = 0;
  // OK when it is not there. Of a folder ("step-000000000120/") all that is in it.
  virtual absl::Status Delete(const std::string& name) = 0;
  // The place, for people.
  virtual std::string Describe(const std::string& name) const = 0;
};

// The store of a place: a folder's path.
std::shared_ptr<CheckpointStore> StoreAt(const std::string& root);

// A small object. INVALID_ARGUMENT when it is longer than `limit`.
absl::StatusOr<std::string> ReadAll(const CheckpointStore& store, const std::string& name, int64_t limit);
// Whether it is there. An error that is not NOT_FOUND says nothing about it.
absl::StatusOr<bool> Exists(const CheckpointStore& store, const std::string& name);

}  // namespace athanor

// Where the coordinator's records live. Commit() is atomic and durable when it returns OK.
// Threads: Load() and Commit() on the core loop; ReadEvents() on any.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/cluster_state.h"
#include "server/storage/service_time.h"

namespace athanor {

// Applied in order: of two operations on one key the later wins.
struct WriteBatch {
  struct Operation {
    std::string key;
    std::optional<std::string> value;  // none: delete
  };
  std::vector<Operation> operations;
  bool empty() const { return operations.empty(); }
};

// A record that could not be used and lies aside as evidence (docs/metadata-format.md).
struct RecordAside {
  std::string key;  // printable
  core::JobId job;  // that it belonged to; empty when to none
  std::string problem;
  absl::Time time;
  bool fresh = false;  // by this run
};

class MetadataStore {
 public:
  virtual ~MetadataStore() = default;
  // A record that is damaged or cannot be is put aside and listed; DATA_LOSS when there are many of them.
  virtual absl::StatusOr<core::ClusterState> Load() = 0;
  // RESOURCE_EXHAUSTED: no space; nothing was acknowledged, the same batch may be tried again. Everything else: the
  // store is broken, only a new process may go on.
  virtual absl::Status Commit(const WriteBatch& batch) = 0;
  virtual absl::StatusOr<std::vector<core::JobEventEntry>> ReadEvents(const core::JobId& job, int64_t after,
                                                                      int32_t limit) = 0;
  virtual uint64_t epoch() const = 0;  // how often this store was opened
  virtual std::string cluster() const = 0;
  virtual TimeFrame frame() const { return {}; }
  // What lies aside, as of Load(); never changes afterwards.
  virtual const std::vector<RecordAside>& aside() const = 0;
};

// Nothing survives the process: for tests and `athanord --in-memory`.
std::unique_ptr<MetadataStore> MakeMemoryStore();

}  // namespace athanor

#include <map>
#include <mutex>

#include "athanor/base/status_macros.h"
#include "server/storage/metadata_store.h"
#include "server/storage/record_codec.h"

namespace athanor {
namespace {

class MemoryStore : public MetadataStore {
 public:
  absl::StatusOr<core::ClusterState> Load() override {
    core::ClusterState state;
    for (const auto& [key, value] : records_) RETURN_IF_ERROR(DecodeInto(key, value, state));
    return state;
  }

  absl::Status Commit(const WriteBatch& batch) override {
    std::lock_guard lock(mutex_);
    for (const auto& [key, value] : batch.operations) {
      if (value.has_value()) {
        records_[key] = *value;
      } else {
        records_.erase(key);
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<core::JobEventEntry>> ReadEvents(const core::JobId& job, int64_t after,
                                                              int32_t limit) override {
    std::lock_guard lock(mutex_);
    std::vector<core::JobEventEntry> events;
    const std::string prefix = EventKey(job, 0).substr(0, job.str().size() + 3);
    for (auto it = records_.lower_bound(EventKey(job, after + 1));
         it != records_.end() && static_cast<int32_t>(events.size()) < limit; ++it) {
      if (it->first.compare(0, prefix.size(), prefix) != 0) break;
      events.push_back(ReadEvent(it->first, it->second, {}));
    }
    return events;
  }

  uint64_t epoch() const override { return 1; }
  std::string cluster() const override { return "memory"; }
  const std::vector<RecordAside>& aside() const override { return aside_; }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> records_;
  const std::vector<RecordAside> aside_;
};

}  // namespace

std::unique_ptr<MetadataStore> MakeMemoryStore() {
  return std::make_unique<MemoryStore>();
}

}  // namespace athanor

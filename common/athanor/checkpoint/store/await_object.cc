#include "athanor/checkpoint/store/await_object.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace athanor {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(20), kLongestPause = absl::Seconds(2);

absl::StatusOr<std::unique_ptr<StoreReader>> OpenWhole(const CheckpointStore& store, const std::string& name,
                                                       int64_t bytes) {
  absl::StatusOr<std::unique_ptr<StoreReader>> reader = store.Open(name);
  if (!reader.ok() || (*reader)->size() == bytes) return reader;
  return absl::DataLossError(
      absl::StrCat(store.Describe(name), ": found ", (*reader)->size(), " bytes; its writer has written ", bytes));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreReader>> AwaitObject(const CheckpointStore& store, const std::string& name,
                                                         int64_t bytes, const AwaitOptions& options) {
  absl::Duration waited, next = kFirstPause;
  while (true) {
    absl::StatusOr<std::unique_ptr<StoreReader>> reader = OpenWhole(store, name, bytes);
    const bool may_come = absl::IsNotFound(reader.status()) || absl::IsDataLoss(reader.status());
    if (reader.ok() || !may_come || waited >= options.patience) return reader;
    if (options.waiting != nullptr) options.waiting();
    options.pause == nullptr ? absl::SleepFor(next) : options.pause(next);
    waited += next;
    next = std::min(2 * next, kLongestPause);
    store.List(name.substr(0, name.rfind('/') + 1)).status().IgnoreError();
  }
}

}  // namespace athanor

// A dataset that leaves its damaged samples out, and counts them, instead of ending the training.
//
//   auto tolerant = std::make_shared<TolerantDataset>(folder, TolerantOptions{.max_damaged = 100});
//   ... train ...
//   DamageReport report = tolerant->report();      // how many, and which
//
// Without it a damaged sample fails the batch (policy fail). Damaged means: the inner dataset says DATA_LOSS for it. A
// batch comes out smaller by its damaged samples; when nothing of it is left, or more samples than max_damaged are
// damaged, the error goes through. Thread-safe, as every dataset.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "athanor/data/dataset.h"

namespace athanor {

struct TolerantOptions {
  int64_t max_damaged = 1000;  // different samples; beyond it the data set as a whole is not to be trusted
};

struct DamageReport {
  int64_t damaged = 0;              // different samples
  int64_t skipped = 0;              // times that one was left out
  std::vector<std::string> errors;  // of the first 20 of them
};

class TolerantDataset : public Dataset {
 public:
  explicit TolerantDataset(std::shared_ptr<const Dataset> inner, TolerantOptions options = {})
      : inner_(std::move(inner)), options_(options) {}

  int64_t size() const override { return inner_->size(); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override { return GetInEpoch(indices, 0); }
  absl::StatusOr<Batch> GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const override;
  DamageReport report() const;

 private:
  absl::Status Note(int64_t index, const absl::Status& error) const;

  const std::shared_ptr<const Dataset> inner_;
  const TolerantOptions options_;
  mutable std::mutex mutex_;
  mutable std::set<int64_t> damaged_;
  mutable DamageReport report_;
};

}  // namespace athanor

// Batches of a dataset, made by threads ahead of time, in an order that depends on the seed alone; stops and continues
// anywhere.
//
//   ASSIGN_OR_RETURN(auto loader, StatefulDataLoader::Make(dataset, {.batch_size = 32, .num_workers = 2}));
//   for (int64_t epoch = 0; epoch < epochs; ++epoch) {
//     loader->StartEpoch(epoch);                                 // not after LoadStateDict in the middle of one
//     while (true) {
//       absl::StatusOr<Batch> batch = loader->Next();
//       if (absl::IsOutOfRange(batch.status())) break;           // end of the epoch
//       RETURN_IF_ERROR(batch.status());
//       ... train ...
//       nlohmann::json state = loader->StateDict();              // counts what Next() gave, not what was prefetched
//     }
//   }
//
// One consumer thread calls all methods. Worker threads only call Dataset::Get().
#pragma once

#include <cstdint>
#include <memory>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/data/distributed_sampler.h"

namespace athanor {

struct LoaderOptions {
  int64_t batch_size = 32;  // of this rank
  bool shuffle = true;
  bool drop_last = false;   // leave out the last, smaller batch (and the samples that do not divide among the ranks)
  int num_workers = 0;      // 0: Next() makes the batch itself
  int prefetch_factor = 2;  // batches in the making or ready: at most num_workers * prefetch_factor
  bool in_order = true;     // false: with workers, whichever batch is ready first
  // True: the threads live as long as the loader. False: they end with the epoch and start with the next one.
  bool persistent_workers = true;
  // Accepted for what users bring along; states are exact after every batch in any case, at no cost.
  int64_t snapshot_every_n_steps = 1;
  bool pin_memory = false;  // page-locked batches, for asynchronous copies to CUDA devices
  double timeout = 600;     // seconds that Next() waits for a worker; then DEADLINE_EXCEEDED
  uint64_t seed = 0;
  int world_size = 1;
  int rank = 0;
  SamplerPadding padding = SamplerPadding::kRepeat;
};

class StatefulDataLoader {
 public:
  // At epoch 0. INVALID_ARGUMENT names the option, found and allowed; a dataset without samples is one.
  static absl::StatusOr<std::unique_ptr<StatefulDataLoader>> Make(std::shared_ptr<const Dataset> dataset,
                                                                  LoaderOptions options);
  // Waits for at most one running Dataset::Get() per worker.
  ~StatefulDataLoader();
  StatefulDataLoader(const StatefulDataLoader&) = delete;
  StatefulDataLoader& operator=(const StatefulDataLoader&) = delete;

  // From its first batch. Prefetched batches of an earlier epoch are dropped. `prefetch` false: nothing is made before
  // the first Next().
  void StartEpoch(int64_t epoch, bool prefetch = true);
  // OUT_OF_RANGE at the end of the epoch (again and again until StartEpoch). The dataset's own error otherwise, with
  // the batch number in front; an exception of the dataset becomes UNKNOWN. After an error the same batch is tried
  // again by the next call. kNone padding: a batch holds real samples only; one without any has size 0 and one sample
  // as a stand-in.
  absl::StatusOr<Batch> Next();
  // Counts the next batch as given out without making it. OUT_OF_RANGE at the end of the epoch.
  absl::Status Skip();

  int64_t epoch() const;
  // Batches of a whole epoch, equal on all ranks.
  int64_t batches_per_epoch() const;
  // Batches given out in this epoch so far / still to come (equal on all ranks). After a restore on another number of
  // ranks `remaining` counts in the new division.
  int64_t position() const;
  int64_t remaining() const;

  // {"epoch", "samples" (of the global order, used by all ranks together), "position", "seed", …}. Restores onto
  // another world size or batch size too: the rest of the epoch is then divided anew. Bit-equal order when both are the
  // same. INVALID_ARGUMENT when the state is of another seed or dataset size; then nothing is changed.
  nlohmann::json StateDict() const;
  absl::Status LoadStateDict(const nlohmann::json& state);

  const LoaderOptions& options() const;

 private:
  class Impl;
  explicit StatefulDataLoader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace athanor

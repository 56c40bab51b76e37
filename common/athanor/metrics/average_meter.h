// Running means of numbers that come batch by batch.
//
//   AverageMeter loss;
//   loss.Update(0.7);                        // counts as one sample
//   loss.Update(batch_loss, batch_size);     // a tensor on any device: no synchronisation
//   loss.Value(); *loss.Average();           // the last value; the mean over all samples (and ranks)
//   loss.Text();                             // "0.5000 (0.6200)": last value, local mean
//
//   AverageMeters meters(sync);              // several by name; one read-out for all of them
//   meters.Update({{"loss", 0.6}, {"auroc", 0.7}});
//   meters["loss"].Update(0.9, 32);
//
// A value is one number or a tensor of a fixed shape (until Reset), kept as float64 (float32 on devices without it). It
// counts n times; n <= 0 changes the last value only. NaN is not filtered: it stays in the mean until Reset (see
// StreamMetrics, which leaves NaN batches out). Means are NaN while nothing counted.
//
// Ranks: Batch() and Average() are collectives when a MeterSync is given: the weighted mean of all ranks' last values,
// the mean over all ranks' samples, added up in the order of the ranks. One exchange, a second one for what is larger
// than some kilobytes. A rank that counted nothing, or has no names, takes part. All ranks have the same names in the
// same order, and values of one shape: else INVALID_ARGUMENT, on all of them. Everything else is local.
//
// A number that comes after tensors on an accelerator goes there; the sum never comes back to the host by an update.
//
// Errors: c10::ValueError for a shape that changes. Not thread-safe.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/metrics/meter_sync.h"
#include "athanor/metrics/metric_values.h"
#include "athanor/metrics/rank_exchange.h"

namespace athanor {

class AverageMeters;

class AverageMeter {
 public:
  explicit AverageMeter(std::shared_ptr<MeterSync> sync = nullptr) : sync_(std::move(sync)) {}

  void Update(const torch::Tensor& value, int64_t n = 1);
  void Update(double value, int64_t n = 1);
  // `n`: int64, 0-dim or of the value's shape (one for each entry), on the value's device.
  void Update(const torch::Tensor& value, const torch::Tensor& n);

  torch::Tensor Value() const;  // the last one
  absl::StatusOr<torch::Tensor> Batch() const;
  absl::StatusOr<torch::Tensor> Average() const;
  torch::Tensor LocalAverage() const;
  torch::Tensor Sum() const;
  int64_t count() const;  // samples, of the entry that has most; waits for the device where n came from it
  int64_t n() const;      // of the last update
  std::string Text(int decimals = 4) const;
  void Reset();

 private:
  friend class AverageMeters;
  friend class StreamMetrics;
  struct Weighted {
    torch::Tensor sum, weight;  // 0-dim zeros when nothing came yet; weight 0-dim or of the sum's shape
  };
  // `n` on the device is only given when the host does not know it.
  void Add(const torch::Tensor& value, int64_t n, const torch::Tensor& device_n);
  torch::Tensor AsStored(const torch::Tensor& value) const;
  void CheckShape(const torch::Tensor& value, bool counts);
  Weighted PartOf(ReadOut of) const;
  torch::Tensor CountTensor() const;                            // int64, on the sum's device
  void Restore(const torch::Tensor& sum, torch::Tensor count);  // into an empty one

  std::shared_ptr<MeterSync> sync_;
  torch::Tensor last_, sum_;  // undefined until the first update that counts
  int64_t n_ = 0, count_ = 0;
  torch::Tensor device_n_, device_count_;      // what is only known on the device; undefined: nothing
  bool scalars_ = false;                       // numbers were counted
  std::optional<std::vector<int64_t>> shape_;  // tensors were counted
};

class AverageMeters {
 public:
  explicit AverageMeters(std::shared_ptr<MeterSync> sync = nullptr) : sync_(std::move(sync)) {}

  void Update(const std::vector<std::pair<std::string, double>>& values);  // each counts once
  void Update(const std::string& name, const torch::Tensor& value, int64_t n = 1) { (*this)[name].Update(value, n); }
  AverageMeter& operator[](const std::string& name);  // made when it is not there
  const AverageMeter* Find(const std::string& name) const;

  std::vector<std::string> names() const;  // in the order in which they came
  MetricValues Value() const;
  absl::StatusOr<MetricValues> Batch() const { return Reduced(ReadOut::kBatch); }
  absl::StatusOr<MetricValues> Average() const { return Reduced(ReadOut::kAll); }
  MetricValues Sum() const;
  std::vector<std::pair<std::string, int64_t>> count() const;
  std::vector<std::pair<std::string, int64_t>> n() const;
  // The weights that Batch() and Average() divide by, summed over the ranks. A collective.
  absl::StatusOr<MetricValues> Weights(bool of_batch) const;
  std::string Text(int decimals = 4) const;  // "loss: 0.5000 (0.6200)\tacc: …"
  void Reset();                              // keeps the names

  // As in MetricSet: "<name>.sum" (float64, or float32 on devices without it) and "<name>.count" (int64, here). Last
  // values are not saved. The names must be there when a state is loaded: their order, which the ranks share, is not in
  // the state.
  absl::StatusOr<TensorMap> StateTensors() const;
  absl::Status LoadState(const TensorMap& state);
  absl::StatusOr<std::function<void()>> PlanLoad(const TensorMap& state);

 private:
  friend class StreamMetrics;
  using Parts = std::vector<AverageMeter::Weighted>;
  bool alone() const { return sync_ == nullptr || sync_->world_size() == 1; }
  RankPart PartFor(ReadOut of) const;
  absl::StatusOr<Parts> Merge(const std::vector<RankPart>& ranks) const;
  absl::StatusOr<AverageMeter::Weighted> MergeOne(size_t meter, const std::vector<RankPart>& ranks) const;
  absl::StatusOr<Parts> SumOver(ReadOut of) const;
  absl::StatusOr<MetricValues> Reduced(ReadOut of) const;
  MetricValues Means(const Parts& parts) const;

  std::shared_ptr<MeterSync> sync_;
  std::vector<std::pair<std::string, std::unique_ptr<AverageMeter>>> meters_;
};

}  // namespace athanor

#include "athanor/metrics/average_meter.h"

#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/state_reader.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

torch::Tensor Zero() {
  return torch::zeros({}, torch::kFloat64);
}

torch::Tensor MeanOf(const torch::Tensor& sum, const torch::Tensor& weight) {
  return torch::where(weight > 0, sum / weight.clamp_min(1), torch::full_like(sum, std::nan("")));
}

std::string ShapeText(torch::IntArrayRef sizes) {
  return absl::StrCat("[", absl::StrJoin(sizes, ", "), "]");
}

}  // namespace

void AverageMeter::Update(double value, int64_t n) {
  if (sum_.defined() && !sum_.is_cpu()) return Add(torch::full({}, value, sum_.options()), n, {});
  Add(torch::tensor(value, torch::kFloat64), n, {});
}

void AverageMeter::Update(const torch::Tensor& value, int64_t n) {
  Add(value, n, {});
}

void AverageMeter::Update(const torch::Tensor& value, const torch::Tensor& n) {
  Add(value, 0, n);
}

torch::Tensor AverageMeter::AsStored(const torch::Tensor& value) const {
  torch::Tensor wide = value.detach();
  // Never the other way round: fetching the sum would wait for its device.
  if (wide.is_cpu() && sum_.defined() && !sum_.is_cpu()) wide = wide.to(sum_.device(), /*non_blocking=*/true);
  wide = wide.to(wide.device().is_mps() ? torch::kFloat32 : torch::kFloat64);
  return wide.numel() == 1 ? wide.reshape({}) : wide;
}

void AverageMeter::CheckShape(const torch::Tensor& value, bool counts) {
  if (value.dim() == 0) {
    if (!counts) return;
    TORCH_CHECK_VALUE(!shape_, "AverageMeter: a single number after tensors of shape ", ShapeText(*shape_));
    scalars_ = true;
    return;
  }
  TORCH_CHECK_VALUE(!scalars_, "AverageMeter: a tensor of shape ", ShapeText(value.sizes()), " after single numbers");
  TORCH_CHECK_VALUE(!shape_ || value.sizes() == torch::IntArrayRef(*shape_), "AverageMeter: a tensor of shape ",
                    ShapeText(value.sizes()), " after shape ", shape_ ? ShapeText(*shape_) : "");
  shape_ = value.sizes().vec();
}

void AverageMeter::Add(const torch::Tensor& value, int64_t n, const torch::Tensor& device_n) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor stored = AsStored(value);
  const bool counts = n > 0 || device_n.defined();
  CheckShape(stored, counts);
  last_ = shape_ && stored.dim() == 0 ? stored.expand(*shape_).clone() : stored;
  n_ = n;
  device_n_ = device_n;
  if (!counts) return;
  if (!sum_.defined()) sum_ = torch::zeros_like(stored);
  if (sum_.device() != stored.device())
    sum_ = sum_.to(stored.device(), stored.scalar_type(), /*non_blocking=*/!stored.is_cpu());
  if (!device_n.defined()) {
    sum_ = sum_ + stored * n;
    count_ += n;
    return;
  }
  sum_ = sum_ + torch::where(device_n > 0, stored, torch::zeros_like(stored)) * device_n;
  device_count_ = device_count_.defined() ? device_count_ + device_n : device_n.clone();
}

int64_t AverageMeter::count() const {
  return count_ + (device_count_.defined() ? device_count_.max().item<int64_t>() : 0);
}

int64_t AverageMeter::n() const {
  return device_n_.defined() ? device_n_.max().item<int64_t>() : n_;
}

torch::Tensor AverageMeter::Value() const {
  if (last_.defined() && count() > 0) return last_;
  return shape_ ? torch::full(*shape_, std::nan(""), torch::kFloat64) : torch::full({}, std::nan(""), torch::kFloat64);
}

torch::Tensor AverageMeter::Sum() const {
  if (sum_.defined()) return sum_;
  return shape_ ? torch::zeros(*shape_, torch::kFloat64) : Zero();
}

torch::Tensor AverageMeter::LocalAverage() const {
  return MeanOf(Sum(), CountTensor());
}

torch::Tensor AverageMeter::CountTensor() const {
  const torch::Tensor known = torch::tensor(count_, torch::kInt64).to(Sum().device());
  return device_count_.defined() ? device_count_.to(torch::kInt64) + known : known;
}

AverageMeter::Weighted AverageMeter::PartOf(ReadOut of) const {
  const auto weight = [](int64_t host, const torch::Tensor& device) {
    const torch::Tensor known = torch::tensor(static_cast<double>(host), torch::kFloat64);
    return device.defined() ? device.to(torch::kCPU, torch::kFloat64) + known : known;
  };
  if (of == ReadOut::kAll) return {Sum().to(torch::kCPU, torch::kFloat64), weight(count_, device_count_)};
  const torch::Tensor n = weight(std::max<int64_t>(0, n_), device_n_);
  if (!last_.defined()) return {torch::zeros_like(Sum(), torch::device(torch::kCPU).dtype(torch::kFloat64)), n};
  const torch::Tensor last = last_.to(torch::kCPU, torch::kFloat64);
  return {torch::where(n > 0, last, torch::zeros_like(last)) * n, n};
}

absl::StatusOr<torch::Tensor> AverageMeter::Batch() const {
  if (sync_ == nullptr || sync_->world_size() == 1) return Value();
  AverageMeters alone(sync_);
  alone["value"] = *this;
  ASSIGN_OR_RETURN(const MetricValues values, alone.Batch());
  return values[0].second;
}

absl::StatusOr<torch::Tensor> AverageMeter::Average() const {
  if (sync_ == nullptr || sync_->world_size() == 1) return LocalAverage();
  AverageMeters alone(sync_);
  alone["value"] = *this;
  ASSIGN_OR_RETURN(const MetricValues values, alone.Average());
  return values[0].second;
}

std::string AverageMeter::Text(int decimals) const {
  return absl::StrCat(ValueText(Value(), decimals), " (", ValueText(LocalAverage(), decimals), ")");
}

void AverageMeter::Reset() {
  *this = AverageMeter(sync_);
}

void AverageMeter::Restore(const torch::Tensor& sum, torch::Tensor count) {
  const bool number = sum.dim() == 0, by_entry = count.dim() > 0;
  if (number && count.item<int64_t>() == 0) return;  // tensors may still come
  sum_ = sum;
  count_ = by_entry ? 0 : count.item<int64_t>();
  if (by_entry) device_count_ = std::move(count);
  scalars_ = number;
  if (!number) shape_ = sum.sizes().vec();
}

// ---- several ----

AverageMeter& AverageMeters::operator[](const std::string& name) {
  for (auto& [found, meter] : meters_) {
    if (found == name) return *meter;
  }
  return *meters_.emplace_back(name, std::make_unique<AverageMeter>(sync_)).second;
}

const AverageMeter* AverageMeters::Find(const std::string& name) const {
  for (const auto& [found, meter] : meters_) {
    if (found == name) return meter.get();
  }
  return nullptr;
}

void AverageMeters::Update(const std::vector<std::pair<std::string, double>>& values) {
  for (const auto& [name, value] : values) (*this)[name].Update(value);
}

std::vector<std::string> AverageMeters::names() const {
  std::vector<std::string> names;
  for (const auto& [name, meter] : meters_) names.push_back(name);
  return names;
}

MetricValues AverageMeters::Value() const {
  MetricValues values;
  for (const auto& [name, meter] : meters_) values.emplace_back(name, meter->Value());
  return values;
}

MetricValues AverageMeters::Sum() const {
  MetricValues values;
  for (const auto& [name, meter] : meters_) values.emplace_back(name, meter->Sum());
  return values;
}

std::vector<std::pair<std::string, int64_t>> AverageMeters::count() const {
  std::vector<std::pair<std::string, int64_t>> counts;
  for (const auto& [name, meter] : meters_) counts.emplace_back(name, meter->count());
  return counts;
}

std::vector<std::pair<std::string, int64_t>> AverageMeters::n() const {
  std::vector<std::pair<std::string, int64_t>> counts;
  for (const auto& [name, meter] : meters_) counts.emplace_back(name, meter->n());
  return counts;
}

// A table of sums and weights, and what is tensors: `numbers` has 2 * the place of a sum, and 1 more where its weights
// follow, one for each entry.
RankPart AverageMeters::PartFor(ReadOut of) const {
  RankPart part{.what = absl::StrCat("means of ", absl::StrJoin(names(), ", "))};
  part.status = RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    torch::Tensor table = torch::zeros({static_cast<int64_t>(meters_.size()), 2}, torch::kFloat64);
    auto rows = table.accessor<double, 2>();
    part.tensors = {table};
    for (size_t i = 0; i < meters_.size(); ++i) {
      const AverageMeter::Weighted own = meters_[i].second->PartOf(of);
      const auto row = static_cast<int64_t>(i);
      const bool by_entry = own.weight.dim() > 0;
      rows[row][1] = own.weight.max().item<double>();
      part.numbers.push_back(own.sum.dim() == 0 ? 0
                                                : 2 * static_cast<int64_t>(part.tensors.size()) + (by_entry ? 1 : 0));
      if (own.sum.dim() == 0) {
        rows[row][0] = own.sum.item<double>();
        continue;
      }
      part.tensors.push_back(own.sum);
      if (by_entry) part.tensors.push_back(own.weight);
    }
  });
  return part;
}

// In the order of the ranks, so that all of them get the same bits.
absl::StatusOr<AverageMeter::Weighted> AverageMeters::MergeOne(size_t meter, const std::vector<RankPart>& ranks) const {
  const auto row = static_cast<int64_t>(meter);
  AverageMeter::Weighted merged{Zero(), Zero()};
  std::optional<size_t> numbers, tensors;  // a rank that counted such
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const torch::Tensor own = ranks[rank].tensors[0][row];
    const auto place = static_cast<size_t>(ranks[rank].numbers[meter] / 2);
    const bool by_entry = ranks[rank].numbers[meter] % 2 == 1;
    if (place == 0) {
      if (own[1].item<double>() <= 0) continue;  // nothing to tell its shape by
      merged.sum = numbers ? merged.sum + own[0] : own[0];
      merged.weight = merged.weight + own[1];
      numbers = rank;
    } else {
      const torch::Tensor& sum = ranks[rank].tensors[place];
      if (tensors && sum.sizes() != merged.sum.sizes()) {
        return absl::InvalidArgumentError(absl::StrCat("metric '", meters_[meter].first, "' has another shape on some ",
                                                       "rank: ", ShapeText(merged.sum.sizes()), " on rank ", *tensors,
                                                       ", ", ShapeText(sum.sizes()), " on rank ", rank));
      }
      merged.sum = tensors ? merged.sum + sum : sum;
      merged.weight = merged.weight + (by_entry ? ranks[rank].tensors[place + 1] : own[1]);
      tensors = rank;
    }
    if (numbers && tensors) {
      return absl::InvalidArgumentError(absl::StrCat("metric '", meters_[meter].first, "' has another shape on some ",
                                                     "rank: single numbers on rank ", *numbers, ", tensors on rank ",
                                                     *tensors));
    }
  }
  return merged;
}

absl::StatusOr<AverageMeters::Parts> AverageMeters::Merge(const std::vector<RankPart>& ranks) const {
  Parts parts;
  absl::Status status;
  RETURN_IF_ERROR(RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    std::vector<RankPart> here = ranks;
    for (RankPart& rank : here) {
      for (torch::Tensor& tensor : rank.tensors) tensor = tensor.to(torch::kCPU, torch::kFloat64);
    }
    for (size_t i = 0; i < meters_.size() && status.ok(); ++i) {
      absl::StatusOr<AverageMeter::Weighted> merged = MergeOne(i, here);
      status = merged.status();
      if (status.ok()) parts.push_back(*std::move(merged));
    }
  }));
  RETURN_IF_ERROR(status);
  return parts;
}

absl::StatusOr<AverageMeters::Parts> AverageMeters::SumOver(ReadOut of) const {
  if (alone()) {
    Parts parts;
    for (const auto& [name, meter] : meters_) parts.push_back(meter->PartOf(of));
    return parts;
  }
  ASSIGN_OR_RETURN(RankParts ranks, ExchangeParts(*sync_, {PartFor(of)}));
  std::vector<RankPart> own;
  for (std::vector<RankPart>& rank : ranks) own.push_back(std::move(rank[0]));
  return Merge(own);
}

absl::StatusOr<MetricValues> AverageMeters::Reduced(ReadOut of) const {
  if (of == ReadOut::kBatch && alone()) return Value();
  ASSIGN_OR_RETURN(const Parts parts, SumOver(of));
  return Means(parts);
}

MetricValues AverageMeters::Means(const Parts& parts) const {
  MetricValues values;
  for (size_t i = 0; i < parts.size(); ++i)
    values.emplace_back(meters_[i].first, MeanOf(parts[i].sum, parts[i].weight));
  return values;
}

absl::StatusOr<MetricValues> AverageMeters::Weights(bool of_batch) const {
  ASSIGN_OR_RETURN(const Parts parts, SumOver(of_batch ? ReadOut::kBatch : ReadOut::kAll));
  MetricValues values;
  for (size_t i = 0; i < parts.size(); ++i) values.emplace_back(meters_[i].first, parts[i].weight);
  return values;
}

std::string AverageMeters::Text(int decimals) const {
  std::string text;
  for (const auto& [name, meter] : meters_)
    absl::StrAppend(&text, text.empty() ? "" : "\t", name, ": ", meter->Text(decimals));
  return text;
}

void AverageMeters::Reset() {
  for (auto& [name, meter] : meters_) meter->Reset();
}

absl::StatusOr<TensorMap> AverageMeters::StateTensors() const {
  return RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    TensorMap state;
    for (const auto& [name, meter] : meters_) {
      state[name + ".sum"] = meter->Sum().contiguous();
      state[name + ".count"] = meter->CountTensor().contiguous();
    }
    return state;
  });
}

absl::StatusOr<std::function<void()>> AverageMeters::PlanLoad(const TensorMap& state) {
  std::vector<AverageMeter> loaded;
  const auto read = [&]() -> absl::Status {
    StateReader reader(state);
    for (const auto& [name, meter] : meters_) {
      const std::string key = name + ".sum";
      const auto found = state.find(key);  // any shape will do
      std::vector<int64_t> sizes;
      if (found != state.end() && found->second.defined()) sizes = found->second.sizes().vec();
      ASSIGN_OR_RETURN(const torch::Tensor sum, reader.Take(key, {torch::kFloat64, torch::kFloat32}, sizes));
      if (sum.dim() > 0 && sum.numel() == 1) return StateReader::Wrong(key, sum, "one number as []");
      const auto counted = state.find(name + ".count");
      const bool by_entry = counted != state.end() && counted->second.defined() && counted->second.dim() > 0;
      if (!by_entry) sizes.clear();
      ASSIGN_OR_RETURN(torch::Tensor count, reader.Take(name + ".count", {torch::kInt64}, sizes));
      loaded.emplace_back(sync_).Restore(sum, std::move(count));
    }
    return reader.Done();
  };
  absl::Status status;
  RETURN_IF_ERROR(RunTorch("metrics", [&] { status = read(); }));
  RETURN_IF_ERROR(status);
  return [this, loaded = std::move(loaded)] {
    for (size_t i = 0; i < loaded.size(); ++i) *meters_[i].second = loaded[i];
  };
}

absl::Status AverageMeters::LoadState(const TensorMap& state) {
  ASSIGN_OR_RETURN(const std::function<void()> load, PlanLoad(state));
  load();
  return absl::OkStatus();
}

}  // namespace athanor

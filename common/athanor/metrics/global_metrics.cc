#include "athanor/metrics/global_metrics.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/sample_history.h"
#include "athanor/metrics/state_reader.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

// The tensors of a fixed size, by the names under which they are saved.
template <class State>
auto SizedTensors(State& state) {
  std::vector<std::pair<std::string, decltype(&state.moments)>> tensors;
  for (auto [kind, by_size] : {std::pair{"confusion", &state.confusion}, std::pair{"curves", &state.curves},
                               std::pair{"calibration", &state.calibration}}) {
    for (auto& [size, tensor] : *by_size) tensors.emplace_back(absl::StrCat(kind, ".", size), &tensor);
  }
  if (state.moments.defined()) tensors.emplace_back("moments", &state.moments);
  return tensors;
}

std::string WhatOf(const std::vector<MetricFunc>& metrics, const MetricNeeds& needs, const Preprocess& preprocess) {
  const auto maybe = [](const auto& value) { return value ? absl::StrCat(*value) : std::string("none"); };
  const auto name = [](std::string* out, const MetricFunc& metric) { out->append(metric.name); };
  std::string what =
      absl::StrCat(absl::StrJoin(metrics, ", ", name), " (", ToString(needs.task), " of width ", needs.width(),
                   ", threshold ", maybe(needs.threshold), ", ignore_index ", maybe(preprocess.options().ignore_index),
                   ", scores ", ToString(preprocess.options().scores), "; state");
  for (const auto& [kind, sizes] : {std::pair{" confusion.", &needs.confusion}, std::pair{" curves.", &needs.curves},
                                    std::pair{" calibration.", &needs.calibration}}) {
    for (const int64_t size : *sizes) absl::StrAppend(&what, kind, size);
  }
  return absl::StrCat(what, needs.moments ? " moments" : "", needs.history ? " history" : "", ")");
}

enum Number : size_t { kUnknown, kOutside, kNan, kWide, kSamples, kNumbers };  // of a RankPart

}  // namespace

absl::StatusOr<std::unique_ptr<GlobalMetrics>> GlobalMetrics::Create(std::vector<MetricFunc> metrics,
                                                                     GlobalOptions options) {
  ASSIGN_OR_RETURN(MetricNeeds needs, MergeNeeds(metrics));
  if (needs.task == MetricTask::kNone)
    return absl::InvalidArgumentError(
        "metrics: none of them names a task (binary, multiclass, multilabel, regression)");
  return std::unique_ptr<GlobalMetrics>(new GlobalMetrics(std::move(metrics), std::move(needs), std::move(options)));
}

GlobalMetrics::GlobalMetrics(std::vector<MetricFunc> metrics, MetricNeeds needs, GlobalOptions options)
    : metrics_(std::move(metrics)), needs_(std::move(needs)), options_(std::move(options)) {
  preprocess_ = options_.preprocess ? *options_.preprocess : needs_.MakePreprocess(options_.scores);
  what_ = WhatOf(metrics_, needs_, preprocess_);
}

void GlobalMetrics::Update(const torch::Tensor& input, const torch::Tensor& target) {
  const torch::NoGradGuard no_grad;
  MaskedBatch batch = preprocess_.Apply(input, target);
  last_ = MetricState::Count(needs_, batch);
  last_samples_ = batch.Samples();
  AddCount(last_samples_, &samples_);
  wrong_.Add(batch);
  if (!all_) all_ = MetricState::Empty(needs_, batch.input.device());
  all_->Add(*last_);
  average_.reset();
  last_wrong_ = {};
  last_wrong_.Add(batch);
  if (!needs_.history) return;
  MaskedBatch kept = preprocess_.Kept(std::move(batch));
  // The caller may go on to write into its tensors.
  if (kept.AliasOf(input, target)) {
    kept.input = kept.input.clone();
    kept.target = kept.target.clone();
  }
  last_->samples = kept;
  chunks_.push_back(std::move(kept));
}

absl::StatusOr<MetricValues> GlobalMetrics::Compute(const MetricState& kept, const torch::Tensor& nans) const {
  return RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    const MetricState state = Restored(kept);
    MetricValues values;
    for (const MetricFunc& metric : metrics_) values.emplace_back(metric.name, NanWhere(nans, metric.compute(state)));
    return values;
  });
}

MetricState GlobalMetrics::Restored(MetricState kept) const {
  if (!needs_.history || !preprocess_.keeps_logits()) return kept;
  kept.samples = preprocess_.Restored(std::move(kept.samples));
  if (kept.dtype != torch::kFloat64) kept.samples.input = kept.samples.input.to(torch::kFloat32);
  return kept;
}

MetricState GlobalMetrics::StateOf(ReadOut of) {
  if (of == ReadOut::kBatch) return last_ ? *last_ : MetricState::Empty(needs_, torch::kCPU);
  if (chunks_.size() > 1) chunks_ = {JoinSamples(chunks_)};
  return KeptState();
}

RankPart GlobalMetrics::PartFor(ReadOut of) {
  RankPart part{.what = what_, .unchanged = of == ReadOut::kAll && average_.has_value()};
  part.status = RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    const MetricState state = StateOf(of);
    part.numbers = {wrong_.LabelCount(), wrong_.ScoreCount(), WrongOf(of).NanCount(),
                    state.dtype == torch::kFloat64 ? 1 : 0, NumberOf(of == ReadOut::kBatch ? last_samples_ : samples_)};
    for (const auto& [key, tensor] : SizedTensors(state)) part.tensors.push_back(*tensor);
    const MaskedBatch& samples = state.samples;
    if (needs_.history && samples.input.size(0) > 0)  // a rank without samples does not know their dtypes
      part.tensors.insert(part.tensors.end(), {samples.input, samples.target, ValidOf(samples), RowsOf(samples)});
  });
  return part;
}

absl::Status GlobalMetrics::CheckParts(const std::vector<RankPart>& parts) const {
  int64_t unknown = 0, outside = 0;
  for (const RankPart& part : parts) {
    if (part.numbers.size() != kNumbers) return absl::InternalError("metrics: a rank sent something else");
    unknown += part.numbers[kUnknown];
    outside += part.numbers[kOutside];
  }
  return WrongInput::Check(unknown, outside, needs_.task, needs_.width());
}

absl::StatusOr<MetricState> GlobalMetrics::Merge(const std::vector<RankPart>& parts) const {
  return RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    const MetricState none = MetricState::Empty(needs_, sync()->device());
    MetricState all = none;
    std::vector<MaskedBatch> chunks;
    for (size_t rank = 0; rank < parts.size(); ++rank) {
      const std::vector<torch::Tensor>& tensors = parts[rank].tensors;
      MetricState one = none;
      size_t at = 0;
      for (const auto& [key, tensor] : SizedTensors(one)) {
        const torch::Tensor& theirs = tensors.at(at++);
        TORCH_CHECK_VALUE(theirs.sizes() == tensor->sizes(), "state of shape ", theirs.sizes(), " on rank ", rank);
        *tensor = rank == 0 ? theirs.clone() : theirs;  // the first one's takes up the others
      }
      if (parts[rank].numbers[kWide] != 0) one.dtype = torch::kFloat64;
      if (rank == 0)
        all = one;
      else
        all.Add(one);
      if (at == tensors.size()) continue;
      MaskedBatch& chunk = chunks.emplace_back();
      for (torch::Tensor* to : {&chunk.input, &chunk.target, &chunk.valid, &chunk.rows}) *to = tensors.at(at++);
    }
    if (needs_.history) all.samples = chunks.empty() ? none.samples : JoinSamples(chunks);
    return all;
  });
}

absl::StatusOr<JointValues> GlobalMetrics::FromParts(ReadOut of, const std::vector<RankPart>& parts) {
  RETURN_IF_ERROR(CheckParts(parts));
  JointValues joint;
  bool unchanged = of == ReadOut::kAll && average_.has_value();
  for (const RankPart& part : parts) {
    joint.samples += part.numbers[kSamples];
    unchanged = unchanged && part.unchanged;
  }
  if (unchanged) {
    joint.values = *average_;
    return joint;
  }
  int64_t nans = 0;
  for (const RankPart& part : parts) nans += part.numbers[kNan];
  ASSIGN_OR_RETURN(const MetricState all, Merge(parts));
  ASSIGN_OR_RETURN(joint.values, Compute(all, torch::tensor(nans, torch::kInt64)));
  if (of == ReadOut::kAll) average_ = joint.values;
  return joint;
}

absl::StatusOr<MetricValues> GlobalMetrics::Value() {
  RETURN_IF_ERROR(wrong_.Check(needs_.task, needs_.width()));
  return Compute(last_ ? *last_ : MetricState::Empty(needs_, torch::kCPU), last_wrong_.nans);
}

absl::StatusOr<MetricValues> GlobalMetrics::Batch() {
  if (alone()) return Value();
  ASSIGN_OR_RETURN(JointValues joint, ReadJointly(*this, ReadOut::kBatch));
  return std::move(joint.values);
}

absl::StatusOr<MetricValues> GlobalMetrics::Average() {
  if (!alone()) {
    ASSIGN_OR_RETURN(JointValues joint, ReadJointly(*this, ReadOut::kAll));
    return std::move(joint.values);
  }
  RETURN_IF_ERROR(wrong_.Check(needs_.task, needs_.width()));
  if (!average_) {
    ASSIGN_OR_RETURN(average_, Compute(StateOf(ReadOut::kAll), wrong_.nans));
  }
  return *average_;
}

absl::StatusOr<MetricState> GlobalMetrics::SyncedState() {
  if (alone()) {
    RETURN_IF_ERROR(wrong_.Check(needs_.task, needs_.width()));
    return LocalState();
  }
  RankPart mine = PartFor(ReadOut::kAll);
  mine.unchanged = false;
  ASSIGN_OR_RETURN(RankParts ranks, ExchangeParts(*sync(), {std::move(mine)}));
  std::vector<RankPart> parts;
  for (std::vector<RankPart>& rank : ranks) parts.push_back(std::move(rank[0]));
  RETURN_IF_ERROR(CheckParts(parts));
  ASSIGN_OR_RETURN(MetricState kept, Merge(parts));
  return RunTorch("metrics", [&] { return Restored(std::move(kept)); });
}

MetricState GlobalMetrics::LocalState() const {
  return Restored(KeptState());
}

MetricState GlobalMetrics::KeptState() const {
  MetricState state = all_ ? *all_ : MetricState::Empty(needs_, torch::kCPU);
  if (!needs_.history) return state;
  state.samples = chunks_.empty() ? MetricState::Empty(needs_, torch::kCPU).samples : JoinSamples(chunks_);
  return state;
}

absl::StatusOr<int64_t> GlobalMetrics::Samples(bool of_batch, bool ranks) {
  ASSIGN_OR_RETURN(const int64_t here,
                   RunTorch("metrics", [&] { return NumberOf(of_batch ? last_samples_ : samples_); }));
  if (!ranks || alone()) return here;
  ASSIGN_OR_RETURN(const RankParts all, ExchangeParts(*sync(), {{.what = "samples of " + what_, .numbers = {here}}}));
  int64_t sum = 0;
  for (const std::vector<RankPart>& rank : all) sum += rank[0].numbers.at(0);
  return sum;
}

absl::StatusOr<std::string> GlobalMetrics::Text(int decimals) {
  ASSIGN_OR_RETURN(const MetricValues value, Value());
  ASSIGN_OR_RETURN(const MetricValues mean, Compute(KeptState(), wrong_.nans));
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? "\t" : "", value[i].first, ": ", ValueText(value[i].second, decimals), " (",
                    ValueText(mean[i].second, decimals), ")");
  }
  return text;
}

absl::StatusOr<TensorMap> GlobalMetrics::StateTensors() {
  return RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    const MetricState all = all_ ? *all_ : MetricState::Empty(needs_, torch::kCPU);
    TensorMap state;
    state["samples"] = CountOrZero(samples_);
    wrong_.Save(&state);
    state["float64"] = torch::tensor(all.dtype == torch::kFloat64, torch::kBool);
    for (const auto& [key, tensor] : SizedTensors(all)) {
      state[key] = tensor->clone(at::MemoryFormat::Contiguous);  // further batches are added in place
    }
    if (!needs_.history) return state;
    if (chunks_.size() > 1) chunks_ = {JoinSamples(chunks_)};  // not two copies of it
    SaveSamples("history", preprocess_, chunks_.empty() ? NoSamples(preprocess_) : chunks_.front(), &state);
    return state;
  });
}

absl::StatusOr<GlobalMetrics::Saved> GlobalMetrics::Read(const TensorMap& state) const {
  StateReader reader(state);
  Saved saved;
  ASSIGN_OR_RETURN(saved.samples, reader.TakeCount("samples"));
  ASSIGN_OR_RETURN(saved.wrong, WrongInput::Read(&reader));
  ASSIGN_OR_RETURN(const torch::Tensor wide, reader.Take("float64", {torch::kBool}, {{}}));
  saved.all = MetricState::Empty(needs_, torch::kCPU);
  if (wide.item<bool>()) saved.all.dtype = torch::kFloat64;
  for (const auto& [key, tensor] : SizedTensors(saved.all)) {
    ASSIGN_OR_RETURN(*tensor, reader.Take(key, {tensor->scalar_type()}, tensor->sizes().vec()));
  }
  if (needs_.history) {
    ASSIGN_OR_RETURN(MaskedBatch batch, ReadSamples("history", preprocess_, &reader));
    if (batch.input.size(0) > 0) saved.chunks.push_back(std::move(batch));
  }
  RETURN_IF_ERROR(reader.Done());
  return saved;
}

absl::StatusOr<std::function<void()>> GlobalMetrics::PlanLoad(const TensorMap& state) {
  absl::StatusOr<Saved> read;
  RETURN_IF_ERROR(RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    read = Read(state);
  }));
  RETURN_IF_ERROR(read.status());
  return [this, saved = *std::move(read)] {
    Reset();
    all_ = saved.all;
    chunks_ = saved.chunks;
    samples_ = saved.samples;
    wrong_ = saved.wrong;
  };
}

void GlobalMetrics::Reset() {
  last_.reset();
  all_.reset();
  average_.reset();
  chunks_.clear();
  last_samples_ = samples_ = torch::Tensor();
  wrong_ = last_wrong_ = {};
}

}  // namespace athanor

#include "athanor/metrics/global_metrics.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/state_reader.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {
namespace {

torch::Tensor RowsOf(const MaskedBatch& batch) {
  if (batch.rows.defined()) return batch.rows;
  return torch::ones({batch.target.size(0)}, torch::TensorOptions().dtype(torch::kBool).device(batch.target.device()));
}

// Of rows for regression, also where nothing was seen yet: chunks and ranks must agree on the shape.
torch::Tensor ValidOf(const MaskedBatch& batch) {
  if (batch.valid.defined()) return batch.valid;
  return batch.target.is_floating_point() ? RowsOf(batch) : torch::ones_like(batch.target, torch::kBool);
}

// On the device of the last one: a restored history may lie on another.
MaskedBatch Join(const std::vector<MaskedBatch>& chunks) {
  const torch::Device device = chunks.back().input.device();
  std::vector<torch::Tensor> inputs, targets, valids, rows;
  for (const MaskedBatch& chunk : chunks) {
    inputs.push_back(chunk.input.to(device));
    targets.push_back(chunk.target.to(device));
    valids.push_back(ValidOf(chunk).to(device));
    rows.push_back(RowsOf(chunk).to(device));
  }
  MaskedBatch joined;
  joined.input = torch::cat(inputs);
  joined.target = torch::cat(targets);
  joined.valid = torch::cat(valids);
  joined.rows = torch::cat(rows);
  return joined;
}

// [N, …] -> [N, numbers of a row], float64.
torch::Tensor Columns(const torch::Tensor& tensor) {
  return tensor.to(torch::kFloat64).reshape({tensor.size(0), tensor.dim() == 1 ? 1 : tensor.size(1)});
}

// The samples of all ranks, in the order of the ranks.
absl::StatusOr<MaskedBatch> GatherBatch(MeterSync& sync, const MaskedBatch& mine) {
  const std::vector<torch::Tensor> parts = {mine.input, mine.target, ValidOf(mine), RowsOf(mine)};
  std::vector<torch::Tensor> columns;
  for (const torch::Tensor& part : parts) columns.push_back(Columns(part));
  ASSIGN_OR_RETURN(const torch::Tensor all, GatherRows(sync, torch::cat(columns, 1)));
  std::vector<torch::Tensor> gathered;
  int64_t at = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const torch::Tensor block = all.narrow(1, at, columns[i].size(1));
    at += columns[i].size(1);
    gathered.push_back((parts[i].dim() == 1 ? block.squeeze(1) : block).to(parts[i].scalar_type()));
  }
  MaskedBatch batch;
  batch.input = gathered[0];
  batch.target = gathered[1];
  batch.valid = gathered[2];
  batch.rows = gathered[3];
  return batch;
}

void AddCount(const torch::Tensor& count, torch::Tensor* to) {
  if (!count.defined()) return;
  *to = to->defined() ? to->to(count.device(), /*non_blocking=*/!count.is_cpu()) + count : count.clone();
}

torch::Tensor CountOrZero(const torch::Tensor& count) {
  return count.defined() ? count : torch::zeros({}, torch::kInt64);
}

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

void SaveSamples(const std::string& prefix, const MaskedBatch& batch, TensorMap* state) {
  (*state)[prefix + ".input"] = batch.input.contiguous();
  (*state)[prefix + ".target"] = batch.target.contiguous();
  (*state)[prefix + ".valid"] = ValidOf(batch).contiguous();
  (*state)[prefix + ".rows"] = RowsOf(batch).contiguous();
}

// What `preprocess` makes of no batch at all.
MaskedBatch NoSamples(const Preprocess& preprocess) {
  MetricNeeds needs;
  needs.task = preprocess.task();
  needs.num_classes = needs.num_labels = needs.num_outputs = preprocess.width();
  needs.history = true;
  return MetricState::Empty(needs, torch::kCPU).samples;
}

absl::StatusOr<MaskedBatch> ReadSamples(const std::string& prefix, const Preprocess& preprocess, StateReader* reader) {
  using Dtypes = std::vector<torch::ScalarType>;
  using Sizes = std::optional<std::vector<int64_t>>;
  const MaskedBatch none = NoSamples(preprocess);
  const bool anything = preprocess.task() == MetricTask::kNone;
  const auto dtypes = [&](const torch::Tensor& like) -> Dtypes {
    if (anything) return {};
    if (!like.is_floating_point()) return {like.scalar_type()};
    return {torch::kFloat64, torch::kFloat32, torch::kFloat16, torch::kBFloat16};
  };
  const auto sizes = [&](const torch::Tensor& like) -> Sizes {
    if (anything) return std::nullopt;
    std::vector<int64_t> any_rows = like.sizes().vec();
    any_rows[0] = StateReader::kAnySize;
    return any_rows;
  };
  MaskedBatch batch;
  ASSIGN_OR_RETURN(batch.input, reader->Take(prefix + ".input", dtypes(none.input), sizes(none.input)));
  ASSIGN_OR_RETURN(batch.target, reader->Take(prefix + ".target", dtypes(none.target), sizes(none.target)));
  ASSIGN_OR_RETURN(batch.valid, reader->Take(prefix + ".valid", {torch::kBool}, std::nullopt));
  ASSIGN_OR_RETURN(batch.rows, reader->Take(prefix + ".rows", {torch::kBool}, std::nullopt));
  const int64_t count = batch.input.size(0);
  for (const auto& [key, tensor] :
       {std::pair{".target", batch.target}, std::pair{".valid", batch.valid}, std::pair{".rows", batch.rows}}) {
    const bool same = tensor.sizes() == batch.target.sizes() || tensor.dim() == 1;
    if (tensor.size(0) != count || !same)
      return StateReader::Wrong(prefix + key, tensor, absl::StrCat(count, " rows, as ", prefix, ".input has"));
  }
  return batch;
}

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
}

void GlobalMetrics::Update(const torch::Tensor& input, const torch::Tensor& target) {
  const torch::NoGradGuard no_grad;
  MaskedBatch batch = preprocess_.Apply(input, target);
  last_ = MetricState::Count(needs_, batch);
  last_samples_ = batch.Samples();
  AddCount(last_samples_, &samples_);
  AddCount(batch.unknown_labels, &unknown_);
  AddCount(batch.outside_of_range, &outside_);
  if (!all_) all_ = MetricState::Empty(needs_, batch.input.device());
  all_->Add(*last_);
  average_.reset();
  if (!needs_.history) return;
  last_->samples = batch;
  // The caller may go on to write into its tensors.
  if (batch.AliasOf(input, target)) {
    batch.input = batch.input.clone();
    batch.target = batch.target.clone();
  }
  chunks_.push_back(std::move(batch));
}

absl::Status GlobalMetrics::CheckBatches() {
  const auto count = [](const torch::Tensor& tensor) { return tensor.defined() ? tensor.item<int64_t>() : 0; };
  if (const int64_t unknown = count(unknown_); unknown > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(unknown, " labels that do not exist for ", ToString(needs_.task), " of width ", needs_.width()));
  }
  if (const int64_t outside = count(outside_); outside > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        outside, " scores outside 0..1 although they were declared as probabilities; declare Scores::kLogits"));
  }
  return absl::OkStatus();
}

absl::StatusOr<MetricValues> GlobalMetrics::Compute(const MetricState& state) const {
  return RunTorch("metrics", [&] {
    const torch::NoGradGuard no_grad;
    MetricValues values;
    for (const MetricFunc& metric : metrics_) values.emplace_back(metric.name, metric.compute(state));
    return values;
  });
}

absl::StatusOr<MetricState> GlobalMetrics::Combine(const MetricState& state) const {
  MeterSync& sync = *options_.sync;
  torch::Tensor packed = state.PackFor(sync.rank(), sync.world_size()).to(sync.device()).contiguous();
  if (packed.numel() > 0) RETURN_IF_ERROR(sync.Sum(packed));
  MetricState all = MetricState::MergePacked(packed, sync.world_size(), state);
  if (needs_.history) {
    ASSIGN_OR_RETURN(all.samples, GatherBatch(sync, state.samples));
  }
  return all;
}

absl::StatusOr<MetricValues> GlobalMetrics::Value() {
  RETURN_IF_ERROR(CheckBatches());
  return Compute(last_ ? *last_ : MetricState::Empty(needs_, torch::kCPU));
}

absl::StatusOr<MetricValues> GlobalMetrics::Batch() {
  if (alone()) return Value();
  RETURN_IF_ERROR(CheckBatches());
  ASSIGN_OR_RETURN(const MetricState all, Combine(last_ ? *last_ : MetricState::Empty(needs_, torch::kCPU)));
  return Compute(all);
}

absl::StatusOr<MetricValues> GlobalMetrics::Average() {
  RETURN_IF_ERROR(CheckBatches());
  // All ranks read out together, so they agree on whether anything is new only by asking each other.
  if (average_ && alone()) return *average_;
  MetricState state = all_ ? *all_ : MetricState::Empty(needs_, torch::kCPU);
  if (needs_.history) {
    const MaskedBatch none = MetricState::Empty(needs_, torch::kCPU).samples;
    state.samples = chunks_.empty() ? none : Join(chunks_);
    if (alone()) {
      if (!chunks_.empty()) chunks_ = {state.samples};
    } else {
      ASSIGN_OR_RETURN(const MetricState all, Combine(state));
      gathered_.push_back(all.samples);
      chunks_.clear();
      state = all;
      state.samples = Join(gathered_);
      gathered_ = {state.samples};
    }
  } else if (!alone()) {
    ASSIGN_OR_RETURN(state, Combine(state));
  }
  ASSIGN_OR_RETURN(average_, Compute(state));
  return *average_;
}

MetricState GlobalMetrics::LocalState() const {
  MetricState state = all_ ? *all_ : MetricState::Empty(needs_, torch::kCPU);
  if (needs_.history && !chunks_.empty()) state.samples = Join(chunks_);
  return state;
}

absl::StatusOr<int64_t> GlobalMetrics::Samples(bool of_batch, bool ranks) {
  const torch::Tensor& local = of_batch ? last_samples_ : samples_;
  const int64_t here = local.defined() ? local.item<int64_t>() : 0;
  if (!ranks || alone()) return here;
  torch::Tensor sum = torch::tensor({static_cast<double>(here)}, torch::kFloat64).to(options_.sync->device());
  RETURN_IF_ERROR(options_.sync->Sum(sum));
  return static_cast<int64_t>(sum.item<double>());
}

absl::StatusOr<std::string> GlobalMetrics::Text(int decimals) {
  ASSIGN_OR_RETURN(const MetricValues value, Value());
  ASSIGN_OR_RETURN(const MetricValues mean, Compute(LocalState()));
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
    state["unknown_labels"] = CountOrZero(unknown_);
    state["outside_of_range"] = CountOrZero(outside_);
    state["float64"] = torch::tensor(all.dtype == torch::kFloat64, torch::kBool);
    for (const auto& [key, tensor] : SizedTensors(all)) {
      state[key] = tensor->clone(at::MemoryFormat::Contiguous);  // further batches are added in place
    }
    if (!needs_.history) return state;
    for (auto [prefix, batches] : {std::pair{"history", &chunks_}, std::pair{"exchanged", &gathered_}}) {
      if (batches->size() > 1) *batches = {Join(*batches)};  // not two copies of it
      SaveSamples(prefix, batches->empty() ? NoSamples(preprocess_) : batches->front(), &state);
    }
    return state;
  });
}

absl::StatusOr<GlobalMetrics::Saved> GlobalMetrics::Read(const TensorMap& state) const {
  StateReader reader(state);
  Saved saved;
  ASSIGN_OR_RETURN(saved.samples, reader.TakeCount("samples"));
  ASSIGN_OR_RETURN(saved.unknown, reader.TakeCount("unknown_labels"));
  ASSIGN_OR_RETURN(saved.outside, reader.TakeCount("outside_of_range"));
  ASSIGN_OR_RETURN(const torch::Tensor wide, reader.Take("float64", {torch::kBool}, {{}}));
  saved.all = MetricState::Empty(needs_, torch::kCPU);
  if (wide.item<bool>()) saved.all.dtype = torch::kFloat64;
  for (const auto& [key, tensor] : SizedTensors(saved.all)) {
    ASSIGN_OR_RETURN(*tensor, reader.Take(key, {tensor->scalar_type()}, tensor->sizes().vec()));
  }
  if (needs_.history) {
    for (auto [prefix, batches] : {std::pair{"history", &saved.chunks}, std::pair{"exchanged", &saved.gathered}}) {
      ASSIGN_OR_RETURN(MaskedBatch batch, ReadSamples(prefix, preprocess_, &reader));
      if (batch.input.size(0) > 0) batches->push_back(std::move(batch));
    }
    if (alone() && !saved.gathered.empty())
      return StateReader::Wrong("exchanged.input", saved.gathered[0].input, "no rows where there are no other ranks");
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
    gathered_ = saved.gathered;
    samples_ = saved.samples;
    unknown_ = saved.unknown;
    outside_ = saved.outside;
  };
}

void GlobalMetrics::Reset() {
  last_.reset();
  all_.reset();
  average_.reset();
  chunks_.clear();
  gathered_.clear();
  last_samples_ = samples_ = unknown_ = outside_ = torch::Tensor();
}

}  // namespace athanor

#include "athanor/metrics/sample_history.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {

torch::Tensor RowsOf(const MaskedBatch& batch) {
  if (batch.rows.defined()) return batch.rows;
  return torch::ones({batch.target.size(0)}, torch::TensorOptions().dtype(torch::kBool).device(batch.target.device()));
}

// Of rows for regression, also where nothing was seen yet: chunks and ranks must agree on the shape.
torch::Tensor ValidOf(const MaskedBatch& batch) {
  if (batch.valid.defined()) return batch.valid;
  return batch.target.is_floating_point() ? RowsOf(batch) : torch::ones_like(batch.target, torch::kBool);
}

MaskedBatch JoinSamples(const std::vector<MaskedBatch>& chunks) {
  if (chunks.size() == 1) {  // not a second copy of all
    MaskedBatch only;
    only.input = chunks[0].input;
    only.target = chunks[0].target;
    only.valid = ValidOf(chunks[0]);
    only.rows = RowsOf(chunks[0]);
    return only;
  }
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

void SaveSamples(const std::string& prefix, const Preprocess& preprocess, const MaskedBatch& batch, TensorMap* state) {
  (*state)[prefix + (preprocess.keeps_logits() ? ".logits" : ".input")] = batch.input.contiguous();
  (*state)[prefix + ".target"] = batch.target.contiguous();
  (*state)[prefix + ".valid"] = ValidOf(batch).contiguous();
  (*state)[prefix + ".rows"] = RowsOf(batch).contiguous();
}

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
  const bool logits = preprocess.keeps_logits() && !reader->Has(prefix + ".input");
  const std::string scores = prefix + (logits ? ".logits" : ".input");
  ASSIGN_OR_RETURN(batch.input, reader->Take(scores, dtypes(none.input), sizes(none.input)));
  if (preprocess.keeps_logits() && !logits) batch.input = preprocess.LogitsOf(batch.input);
  ASSIGN_OR_RETURN(batch.target, reader->Take(prefix + ".target", dtypes(none.target), sizes(none.target)));
  ASSIGN_OR_RETURN(batch.valid, reader->Take(prefix + ".valid", {torch::kBool}, std::nullopt));
  ASSIGN_OR_RETURN(batch.rows, reader->Take(prefix + ".rows", {torch::kBool}, std::nullopt));
  const int64_t count = batch.input.size(0);
  for (const auto& [key, tensor] :
       {std::pair{".target", batch.target}, std::pair{".valid", batch.valid}, std::pair{".rows", batch.rows}}) {
    const bool same = tensor.sizes() == batch.target.sizes() || tensor.dim() == 1;
    if (tensor.size(0) != count || !same)
      return StateReader::Wrong(prefix + key, tensor, absl::StrCat(count, " rows, as ", scores, " has"));
  }
  return batch;
}

}  // namespace athanor

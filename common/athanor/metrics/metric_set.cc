#include "athanor/metrics/metric_set.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

std::string LengthsText(torch::IntArrayRef sizes) {
  return absl::StrCat("[", absl::StrJoin(sizes, ", "), "]");
}

// Rows of the packed values belong to the same positions when the varying dims are the same ones with the same sizes.
void CheckAligned(const NestedStructure& a, const NestedStructure& b) {
  TORCH_CHECK_VALUE(a.batch_size() == b.batch_size(), "nested input and target: ", a.batch_size(), " and ",
                    b.batch_size(), " elements; they must be as many");
  const int64_t common = std::min(a.rank(), b.rank());
  if (a.batch_size() == 0 || (common == 0 && a.AllSame() && b.AllSame())) return;
  TORCH_CHECK_VALUE(a.varying_dims() == b.varying_dims(), "nested input and target: element 0 has lengths ",
                    LengthsText(a.sizes(0)), " and ", LengthsText(b.sizes(0)),
                    "; the same dims must vary, and a last dim that only one of them has must be of one size");
  for (int64_t i = 0; i < a.batch_size(); ++i) {
    for (int64_t d = 0; d < common; ++d) {
      // The last dim of equal ranks may hold scores on one side and a label on the other.
      const bool scores = d > 0 && d + 1 == common && a.rank() == b.rank() && a.IsStatic(d);
      const auto place = static_cast<size_t>(d);
      TORCH_CHECK_VALUE(scores || a.sizes(i)[place] == b.sizes(i)[place], "nested input and target: element ", i,
                        " has lengths ", LengthsText(a.sizes(i)), " and ", LengthsText(b.sizes(i)),
                        "; they must be the same");
    }
  }
}

// The lengths of `nested` for a dense partner: without the last dim or with the one more that `dense` has, or with the
// last size of `dense` where it is that of scores or a label.
NestedStructure::Ptr StructureFor(const NestedStructure::Ptr& own, const torch::Tensor& dense) {
  const NestedStructure& nested = *own;
  const int64_t rank = dense.dim() - 1;
  const bool last_is_static = rank > 1 && rank == nested.rank() && nested.IsStatic(rank - 1);
  // Its own structure has the places of its rows at hand.
  if (rank == nested.rank() &&
      (!last_is_static || nested.batch_size() == 0 || nested.sizes(0).back() == dense.size(-1)))
    return own;
  TORCH_CHECK_VALUE(rank >= 0 && std::abs(rank - nested.rank()) <= 1, "a nested batch of ", nested.rank() + 1,
                    " dims and a dense tensor of ", dense.dim(), " dims do not fit; allowed: one dim more or less");
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < nested.batch_size(); ++i) {
    const torch::IntArrayRef of_element = nested.sizes(i);
    const int64_t kept = std::min(last_is_static ? rank - 1 : rank, nested.rank());
    sizes.insert(sizes.end(), of_element.begin(), of_element.begin() + static_cast<std::ptrdiff_t>(kept));
    if (kept < rank) sizes.push_back(dense.size(-1));
  }
  return NestedStructure::Make(nested.batch_size(), rank, std::move(sizes));
}

torch::Tensor PackedLike(const NestedTensor& nested, const torch::Tensor& dense) {
  const NestedStructure::Ptr& own = nested.structure();
  const NestedStructure::Ptr structure = StructureFor(own, dense);
  CheckAligned(*own, *structure);
  std::vector<int64_t> packed = structure->static_sizes();
  packed.insert(packed.begin(), structure->rows());
  const torch::Tensor any = torch::empty({1}, dense.options()).expand(packed);
  const NestedTensor like = NestedTensor::FromPacked(any, structure, nested.view());
  const int64_t batch_dim = like.batch_dim();
  for (int64_t d = 0; d < structure->rank(); ++d) {
    const int64_t longest = structure->max_sizes()[static_cast<size_t>(d)];
    const int64_t width = dense.size(d == 0 && batch_dim == 1 ? 0 : d + 1);
    TORCH_CHECK_VALUE(width >= longest, "a dense tensor of ", dense.sizes(),
                      " is too narrow for nested elements of up to ", LengthsText(own->max_sizes()));
  }
  return like.NestedLike(dense, /*strict=*/false).concat();
}

}  // namespace

LabeledBatch PackedPair(const NestedValue& input, const NestedValue& target) {
  if (!input.is_nested() && !target.is_nested()) return {input.dense(), target.dense()};
  if (input.is_nested() && target.is_nested()) {
    CheckAligned(*input.nested().structure(), *target.nested().structure());
    return {input.nested().concat(), target.nested().concat()};
  }
  if (input.is_nested()) return {input.nested().concat(), PackedLike(input.nested(), target.dense())};
  return {PackedLike(target.nested(), input.dense()), target.nested().concat()};
}

void MetricSet::Update(const NestedValue& input, const NestedValue& target) {
  const LabeledBatch pair = PackedPair(input, target);
  Update(pair.input, pair.target);
}

absl::Status MetricSet::UpdateTasks(const TaskBatches& /*batches*/) {
  return absl::UnimplementedError("these metrics have no tasks; update them with scores and labels");
}

absl::StatusOr<std::vector<torch::Tensor>> MetricSet::Weights(bool /*of_batch*/, bool /*ranks*/) {
  return std::vector<torch::Tensor>();
}

absl::StatusOr<TensorMap> MetricSet::StateTensors() {
  return absl::UnimplementedError("these metrics do not save their state");
}

absl::StatusOr<std::function<void()>> MetricSet::PlanLoad(const TensorMap& /*state*/) {
  return absl::UnimplementedError("these metrics do not load a state");
}

absl::Status MetricSet::LoadState(const TensorMap& state) {
  ASSIGN_OR_RETURN(const std::function<void()> load, PlanLoad(state));
  load();
  return absl::OkStatus();
}

}  // namespace athanor

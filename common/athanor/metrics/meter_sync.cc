#include "athanor/metrics/meter_sync.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/rank_exchange.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

class GroupSync : public MeterSync {
 public:
  explicit GroupSync(const Membership& members) : members_(members) {}
  int rank() const override { return members_.rank(); }
  int world_size() const override { return members_.world_size(); }
  torch::Device device() const override {
    return members_.group() == nullptr ? torch::Device(torch::kCPU) : members_.group()->device();
  }
  absl::StatusOr<torch::Tensor> Gather(const torch::Tensor& bytes) override {
    return members_.group() == nullptr ? bytes.unsqueeze(0) : members_.group()->AllGather(bytes);
  }
  absl::Status Reseat(const Membership& members) override {
    members_ = members;
    return absl::OkStatus();
  }
  const void* group() const override { return members_.group(); }

 private:
  Membership members_;
};

bool SameRows(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes().slice(1) == b.sizes().slice(1);
}

std::string RowsText(const torch::Tensor& rows) {
  return absl::StrCat(c10::toString(rows.scalar_type()), " [", absl::StrJoin(rows.sizes().slice(1), ", "), "]");
}

}  // namespace

absl::Status MeterSync::Reseat(const Membership& /*members*/) {
  return absl::UnimplementedError("metrics: the ranks of this MeterSync cannot change");
}

std::shared_ptr<MeterSync> MakeMeterSync(const Membership& members) {
  return std::make_shared<GroupSync>(members);
}

absl::StatusOr<torch::Tensor> GatherRows(MeterSync& sync, const torch::Tensor& rows) {
  RankPart mine{.what = "rows"};
  if (rows.dim() == 0) {
    mine.status = absl::InvalidArgumentError("a number has no rows");
  } else {
    mine.tensors = {rows};
  }
  ASSIGN_OR_RETURN(const RankParts ranks, ExchangeParts(sync, {std::move(mine)}));
  std::vector<torch::Tensor> found;
  size_t first = 0;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const torch::Tensor& theirs = ranks[rank][0].tensors[0];
    if (theirs.size(0) == 0) continue;
    if (found.empty()) first = rank;
    if (!found.empty() && !SameRows(found[0], theirs)) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", first, " has rows of ", RowsText(found[0]), ", rank ", rank, " of ", RowsText(theirs)));
    }
    found.push_back(theirs);
  }
  if (found.empty()) return ranks[0][0].tensors[0];
  return RunTorch("metrics", [&] { return torch::cat(found); });
}

}  // namespace athanor

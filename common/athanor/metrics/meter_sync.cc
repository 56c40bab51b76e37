#include "athanor/metrics/meter_sync.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

class GroupSync : public MeterSync {
 public:
  explicit GroupSync(ProcessGroup& group) : group_(group) {}
  int rank() const override { return group_.rank(); }
  int world_size() const override { return group_.world_size(); }
  torch::Device device() const override { return group_.device(); }
  absl::Status Sum(torch::Tensor tensor) override { return group_.AllReduceSum(std::move(tensor)); }

 private:
  ProcessGroup& group_;
};

}  // namespace

std::shared_ptr<MeterSync> MakeMeterSync(ProcessGroup& group) {
  return std::make_shared<GroupSync>(group);
}

absl::StatusOr<torch::Tensor> GatherRows(MeterSync& sync, const torch::Tensor& rows) {
  const int64_t width = rows.size(0) == 0 ? 1 : rows.numel() / rows.size(0);
  const auto options = torch::TensorOptions().dtype(torch::kFloat64);
  torch::Tensor counts = torch::zeros({sync.world_size(), 2}, options);
  counts[sync.rank()][0] = static_cast<double>(rows.size(0));
  counts[sync.rank()][1] = static_cast<double>(rows.size(0) == 0 ? 0 : width);
  counts = counts.to(sync.device());
  RETURN_IF_ERROR(sync.Sum(counts));
  counts = counts.to(torch::kCPU);
  int64_t total = 0, before = 0, wide = rows.dim() > 1 ? rows.size(1) : 1;
  for (int rank = 0; rank < sync.world_size(); ++rank) {
    const auto count = counts[rank][0].item<int64_t>(), theirs = counts[rank][1].item<int64_t>();
    if (rank < sync.rank()) before += count;
    total += count;
    if (theirs == 0) continue;
    if (rows.size(0) > 0 && theirs != width) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank, " has rows of ", theirs, " numbers, rank ", sync.rank(), " of ", width));
    }
    wide = theirs;
  }
  torch::Tensor all = torch::zeros({total, wide}, options.device(sync.device()));
  if (rows.size(0) > 0) {
    all.narrow(0, before, rows.size(0)).copy_(rows.detach().reshape({rows.size(0), wide}));
  }
  RETURN_IF_ERROR(sync.Sum(all));
  std::vector<int64_t> sizes = rows.sizes().vec();
  sizes[0] = total;
  if (rows.size(0) == 0 && rows.dim() > 1) sizes.back() = wide;
  return all.reshape(sizes).to(rows.device(), rows.scalar_type());
}

}  // namespace athanor

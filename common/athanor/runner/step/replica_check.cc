#include "athanor/runner/step/replica_check.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#ifdef ATHANOR_CUDA
#include <ATen/cuda/CUDAContext.h>
#endif

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/fingerprint.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/process_group.h"
#include "athanor/parallel/tensor_fingerprint.h"
#include "athanor/runner/watch/telemetry.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr size_t kNamedRanks = 16;

// What decides how results are rounded.
std::string KindOfMachine(const torch::Device& device) {
#ifdef ATHANOR_CUDA
  if (device.is_cuda()) return at::cuda::getDeviceProperties(device.has_index() ? device.index() : 0)->name;
#endif
  if (!device.is_cpu()) return device.str();
  return absl::StrCat(at::get_cpu_capability(), ", ", at::get_num_threads(), " threads");
}

std::string RanksText(const std::vector<int64_t>& ranks) {
  std::vector<int64_t> shown(ranks.begin(), ranks.begin() + std::min(ranks.size(), kNamedRanks));
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(shown, ", "),
                      shown.size() < ranks.size() ? absl::StrCat(" and ", ranks.size() - shown.size(), " more") : "");
}

}  // namespace

int64_t RoundsBetweenChecks(double check_seconds, double round_seconds) {
  if (!(round_seconds > 0)) return 1;  // nothing is known yet
  const double rounds = std::ceil(check_seconds / (ReplicaCheck::kShare * round_seconds) - 1e-9);
  return static_cast<int64_t>(std::clamp<double>(rounds, 1, ReplicaCheck::kMaxInterval));
}

std::string DifferingRanks(const std::vector<int64_t>& fingerprints) {
  std::map<int64_t, int64_t> counts;
  for (const int64_t one : fingerprints) ++counts[one];
  int64_t right = fingerprints.empty() ? 0 : fingerprints.front();
  for (const auto& [one, count] : counts) {
    if (count > counts[right]) right = one;
  }
  std::vector<int64_t> same, other;
  for (size_t rank = 0; rank < fingerprints.size(); ++rank)
    (fingerprints[rank] == right ? same : other).push_back(static_cast<int64_t>(rank));
  return absl::StrCat(RanksText(other), other.size() == 1 ? " differs from " : " differ from ", RanksText(same));
}

absl::StatusOr<ReplicaCheck> ReplicaCheck::Create(const Membership& members, std::optional<int64_t> interval) {
  ReplicaCheck check;
  if (!members.several() || interval == 0) return check;
  check.members_ = members;
  check.on_ = true;
  if (interval.has_value()) {
    check.interval_ = check.next_round_ = *interval;
    return check;
  }
  const std::string kind = KindOfMachine(members.group()->device());
  const auto number = static_cast<int64_t>(Fingerprint(kind) >> 2);
  ASSIGN_OR_RETURN(const Agreement kinds, members.group()->AllAgree({number}));
  if (kinds.min[0] == kinds.max[0]) return check;
  check.on_ = false;
  check.off_because_ =
      absl::StrCat("the ranks' weights are not compared, since their machines round differently (here: ", kind,
                   "); comm.replica_check_interval does it all the same");
  return check;
}

void ReplicaCheck::Look(const std::vector<torch::Tensor>& weights, StepVote* vote) {
  Telemetry::Clock clock;
  vote->fingerprint = FingerprintOf(weights);
  vote->fingerprint_seconds = clock.Lap();
}

absl::Status ReplicaCheck::Judge(const StepVote& mine, const StepVerdict& verdict, int64_t round, int64_t step) {
  if (verdict.replicas_differ) return Difference(mine.fingerprint, step);
  next_round_ =
      round + (interval_ > 0 ? interval_ : RoundsBetweenChecks(verdict.fingerprint_seconds, verdict.step_seconds));
  alike_at_ = step;
  return absl::OkStatus();
}

absl::Status ReplicaCheck::Difference(int64_t mine, int64_t step) const {
  torch::Tensor own = torch::full({1}, mine, torch::kInt64).to(members_.group()->device());
  ASSIGN_OR_RETURN(torch::Tensor all, members_.group()->AllGather(own));
  all = all.cpu().flatten();
  const std::vector<int64_t> fingerprints(all.const_data_ptr<int64_t>(), all.const_data_ptr<int64_t>() + all.numel());
  const std::string since = alike_at_ < 0 ? "" : absl::StrCat("; they were the same at step ", alike_at_);
  return WithFailureKind(
      absl::InternalError(absl::StrCat(
          "training: the ranks do not hold the same weights at step ", step, ": ", DifferingRanks(fingerprints), since,
          ". A rank changed weights by itself, or computes otherwise than the others (comm.replica_check_interval)")),
      FailureKind::kOurBug);
}

}  // namespace athanor

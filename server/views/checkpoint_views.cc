#include "server/views/checkpoint_views.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/service/channel.h"
#include "server/convert/proto_convert.h"

namespace athanor {

v1::Checkpoint ShowCheckpoint(const core::CoordinatorCore& core, const core::JobId& id, core::Step step,
                              const std::string& job_dir) {
  const auto job = core.state().jobs.find(id);
  const auto checkpoints = core.state().checkpoints.find(id);
  if (job != core.state().jobs.end() && checkpoints != core.state().checkpoints.end()) {
    const auto it = checkpoints->second.find(step);
    if (it != checkpoints->second.end()) return ToProto(it->second, job->second, job_dir);
  }
  v1::Checkpoint gone;
  gone.set_job(id.str());
  gone.set_step(step);
  gone.set_name(core::CheckpointName(step));
  gone.set_note("is deleted");
  return gone;
}

absl::StatusOr<v1::ListCheckpointsResponse> ShowCheckpoints(const core::CoordinatorCore& core, const core::JobId& id,
                                                            const std::string& job_dir,
                                                            const v1::ListCheckpointsRequest& request) {
  core::Step before = std::numeric_limits<core::Step>::max();
  if (!request.page_token().empty() && !absl::SimpleAtoi(request.page_token(), &before))
    return absl::InvalidArgumentError("page_token: give back next_page_token as it was");
  v1::ListCheckpointsResponse response;
  const int size = request.page_size() <= 0 ? 100 : std::min(request.page_size(), 1000);
  const auto checkpoints = core.state().checkpoints.find(id);
  if (checkpoints == core.state().checkpoints.end()) return response;
  const core::JobEntry& job = core.state().jobs.at(id);
  int64_t bytes = 0;
  for (auto it = std::make_reverse_iterator(checkpoints->second.lower_bound(before)); it != checkpoints->second.rend();
       ++it) {
    const core::CheckpointState state = it->second.state;
    if (!request.all_states() && state != core::CheckpointState::kCommitted && state != core::CheckpointState::kDamaged)
      continue;
    if (response.checkpoints_size() == size || bytes >= kMaxPageBytes) {
      response.set_next_page_token(absl::StrCat(response.checkpoints().rbegin()->step()));
      break;
    }
    *response.add_checkpoints() = ToProto(it->second, job, job_dir);
    bytes += static_cast<int64_t>(response.checkpoints().rbegin()->ByteSizeLong());
  }
  return response;
}

}  // namespace athanor

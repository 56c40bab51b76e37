#include "server/views/cluster_views.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "athanor/base/version.h"
#include "common/service/channel.h"
#include "server/convert/proto_convert.h"

namespace athanor {

v1::ListWorkersResponse ShowWorkers(const core::CoordinatorCore& core, const v1::ListWorkersRequest& request,
                                    absl::Time now) {
  v1::ListWorkersResponse response;
  const int size = request.page_size() <= 0 ? 1000 : std::min(request.page_size(), 1000);
  int64_t bytes = 0;
  const auto& workers = core.state().workers;
  for (auto it = workers.upper_bound(core::WorkerId(request.page_token())); it != workers.end(); ++it) {
    if (response.workers_size() == size || bytes >= kMaxPageBytes) {
      response.set_next_page_token(response.workers().rbegin()->id());
      break;
    }
    *response.add_workers() = ToProto(it->second, now);
    bytes += static_cast<int64_t>(response.workers().rbegin()->ByteSizeLong());
  }
  return response;
}

v1::ClusterStatus ShowCluster(const core::CoordinatorCore& core, const MetadataStore& store,
                              const absl::Status& writable, absl::Time started_at) {
  const core::ClusterState& state = core.state();
  v1::ClusterStatus response;
  response.set_version(Version());
  response.set_commit(Commit());
  *response.mutable_started_at() = ToProto(started_at);
  for (const auto& [id, job] : state.jobs)
    ++(*response.mutable_jobs_by_state())[absl::AsciiStrToUpper(core::ToString(job.state))];
  for (const auto& [id, worker] : state.workers) {
    ++(*response.mutable_workers_by_state())[absl::AsciiStrToUpper(core::ToString(worker.state))];
    if (worker.state == core::WorkerState::kLost || worker.state == core::WorkerState::kQuarantined) continue;
    response.set_slots_total(response.slots_total() + worker.slots);
    response.set_slots_free(response.slots_free() + worker.slots - static_cast<int32_t>(worker.used.size()));
  }
  int64_t checkpoints = 0;
  for (const auto& [id, all] : state.checkpoints) checkpoints += static_cast<int64_t>(all.size());
  response.set_checkpoints(checkpoints);
  response.set_store_writable(writable.ok());
  response.set_store_error(std::string(writable.message()));
  response.set_epoch(store.epoch());
  constexpr int kShown = 100;
  for (const RecordAside& aside : store.aside()) {
    if (response.records_put_aside_size() == kShown) break;
    v1::RecordPutAside& one = *response.add_records_put_aside();
    one.set_key(aside.key);
    one.set_problem(aside.problem);
    *one.mutable_time() = ToProto(aside.time);
  }
  return response;
}

}  // namespace athanor

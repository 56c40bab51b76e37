// Core values <-> messages of athanor.v1. Lossless for what both sides have.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/v1/agent_service.pb.h"
#include "athanor/v1/checkpoint.pb.h"
#include "athanor/v1/failure.pb.h"
#include "athanor/v1/job.pb.h"
#include "athanor/v1/job_service.pb.h"
#include "server/core/coordinator_core.h"

namespace athanor {

google::protobuf::Duration ToProto(absl::Duration duration);
absl::Duration FromProto(const google::protobuf::Duration& duration);
// Infinite times become the unset message: call only when `IsSet(time)`.
google::protobuf::Timestamp ToProto(absl::Time time);
inline bool IsSet(absl::Time time) {
  return time != absl::InfinitePast() && time != absl::InfiniteFuture();
}

v1::FailureCause ToProto(const core::FailureCause& cause);
core::FailureCause FromProto(const v1::FailureCause& cause);
v1::RankProgress ToProto(const core::RankProgress& progress);
core::RankProgress FromProto(const v1::RankProgress& progress);
// Metrics have names of the user's choice: the first `most` by name, without those of more than 128 bytes.
inline constexpr size_t kMaxProgressMetrics = 64, kMaxCheckpointMetrics = 256;
inline constexpr size_t kMaxRunEvents = 8, kMaxRunEventBytes = 512;  // of a generation, in its rank 0's reports
std::map<std::string, double> BoundedMetrics(const google::protobuf::Map<std::string, double>& metrics, size_t most);
core::RankRef FromProto(const v1::RankId& id);
v1::RankId ToProto(const core::RankRef& id);

// The core's view of a submitted spec; `payload` is the message itself. The spec has been validated.
core::JobSpec CoreSpec(const v1::JobSpec& spec);
core::JobSpec CoreSpec(const v1::JobSpec& spec, int32_t keep_latest_k);
// How many checkpoints the runner's options keep, read as the trainer reads them; 0 = all.
int32_t KeepLatestK(const v1::JobSpec& spec);
// A copy whose env values are blank: for every reply and log.
v1::JobSpec WithoutSecrets(const v1::JobSpec& spec);

v1::Generation ToProto(const core::GenerationEntry& generation);
v1::Checkpoint ToProto(const core::CheckpointEntry& checkpoint, const core::JobEntry& job, const std::string& job_dir);
v1::Worker ToProto(const core::WorkerEntry& worker, absl::Time now);
v1::JobEvent ToProto(const core::JobEventEntry& event);
// `detailed`: with per-rank progress and generations.
v1::Job ToProto(const core::CoordinatorCore& core, const core::JobEntry& job, const std::string& job_dir,
                bool detailed);

}  // namespace athanor

// Checkpoints as they are shown. Pure functions of the core's state; core loop's thread.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "athanor/v1/job_service.pb.h"
#include "server/core/coordinator_core.h"

namespace athanor {

// One that has gone is shown as such: a verb may be repeated after its checkpoint was deleted.
v1::Checkpoint ShowCheckpoint(const core::CoordinatorCore& core, const core::JobId& job, core::Step step,
                              const std::string& job_dir);
// Newest first, in pages of bounded bytes; the token is the step of the last one shown.
absl::StatusOr<v1::ListCheckpointsResponse> ShowCheckpoints(const core::CoordinatorCore& core, const core::JobId& job,
                                                            const std::string& job_dir,
                                                            const v1::ListCheckpointsRequest& request);

}  // namespace athanor

// Jobs as they are shown. Pure functions of the core's state and the stored events; core loop's thread.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/v1/job_service.pb.h"
#include "server/core/coordinator_core.h"
#include "server/storage/metadata_store.h"

namespace athanor {

using JobDirOf = std::function<std::string(const core::JobId&)>;

// Newest first, in pages of bounded bytes; the token is the submit order of the last one shown.
absl::StatusOr<v1::ListJobsResponse> ShowJobs(const core::CoordinatorCore& core, const JobDirOf& job_dir,
                                              const v1::ListJobsRequest& request);
absl::StatusOr<v1::ListEventsResponse> ShowEvents(MetadataStore& store, const core::JobId& job,
                                                  const v1::ListEventsRequest& request);
absl::StatusOr<v1::ExplainJobResponse> ExplainJob(const core::CoordinatorCore& core, MetadataStore& store,
                                                  const core::JobId& job, absl::Time now);

}  // namespace athanor

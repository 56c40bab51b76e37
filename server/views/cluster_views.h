// Workers and the cluster as they are shown. Pure functions; core loop's thread.
#pragma once

#include "absl/status/status.h"
#include "athanor/v1/job_service.pb.h"
#include "server/core/coordinator_core.h"
#include "server/storage/metadata_store.h"

namespace athanor {

// By name, in pages of bounded bytes; the token is the name of the last one shown.
v1::ListWorkersResponse ShowWorkers(const core::CoordinatorCore& core, const v1::ListWorkersRequest& request,
                                    absl::Time now);
// `writable`: whether the store can be written now.
v1::ClusterStatus ShowCluster(const core::CoordinatorCore& core, const MetadataStore& store,
                              const absl::Status& writable, absl::Time started_at);

}  // namespace athanor

// A client's word for a job: resolved with a note in the answer's header when it stands for several.
#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/core/coordinator_core.h"

namespace athanor {

// For questions: the newest of several. Call before anything of the answer is sent.
absl::StatusOr<core::JobId> ResolveWithNote(const core::CoordinatorCore& core, const std::string& reference,
                                            grpc::CallbackServerContext* context);
// For verbs, once they are done: which of several jobs was taken.
void NoteTaken(const core::CoordinatorCore& core, const std::string& reference, const core::JobId& taken,
               grpc::CallbackServerContext* context);

}  // namespace athanor

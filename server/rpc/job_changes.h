// What a resume changes in a job: `athanor job resume JOB --set parallel.axes.shard=4`.
//
//   ASSIGN_OR_RETURN(core::JobSpec next, ChangeSpec(job.spec, {"parallel.axes.shard=4"}, /*from_scratch=*/false));
//
// Pure functions, thread-safe.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/job_spec.h"

namespace athanor {

using Assignments = google::protobuf::RepeatedPtrField<std::string>;  // each "field=value"

// INVALID_ARGUMENT: too many, too long, or no "field=value".
absl::Status CheckChanges(const Assignments& set);

// `spec` with `set` applied, checked as a submitted job is. Only the sizes in `resources` and options of the runner may
// change; the latter may be written without "runner.". Other degrees of `parallel.axes` change `resources.ranks` with
// them, unless that is set too: an axis that takes what the others leave keeps its degree. With `from_scratch` every
// option of the runner may change, else those with which a checkpoint goes on. INVALID_ARGUMENT names the assignment,
// what was found and what is allowed.
absl::StatusOr<core::JobSpec> ChangeSpec(const core::JobSpec& spec, const Assignments& set, bool from_scratch);

}  // namespace athanor

// Every request is checked here before it becomes an event. INVALID_ARGUMENT names the field, what was found and what
// is allowed.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/v1/agent_service.pb.h"
#include "athanor/v1/job.pb.h"
#include "athanor/v1/job_service.pb.h"
#include "server/core/job_spec.h"

namespace athanor {

inline constexpr int kMaxRanks = 4096;

// [a-z0-9]([-a-z0-9._]*[a-z0-9])?, at most `limit` bytes.
absl::Status CheckName(const std::string& field, const std::string& value, size_t limit = 63);
absl::Status CheckJobSpec(const v1::JobSpec& spec);
// The same, and what the core takes: the runner's options in their canonical form.
absl::StatusOr<core::JobSpec> TakeJobSpec(v1::JobSpec spec);
// Small enough that everything which carries it is a message that can be sent.
absl::Status CheckSpecSize(const v1::JobSpec& spec);
// What becomes a record is refused here when the store could not read it back.
absl::Status CheckStep(core::Step step);
absl::Status CheckRankCall(const v1::RankCall& call);
absl::Status CheckRegister(const v1::Register& message);
absl::Status CheckRequestKey(const std::string& key, bool required);
// What stands for a job or a checkpoint in a request: printable, at most 128 bytes.
absl::Status CheckReference(const std::string& field, const std::string& value);
// For error messages: quoted, control characters escaped, shortened.
std::string Show(const std::string& value);

}  // namespace athanor

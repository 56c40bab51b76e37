// Removes the files of one checkpoint and nothing else.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace athanor::agent {

// `path` must be absolute and end in /<job>/step-<12 digits>; a link is refused, nothing outside is followed. OK when
// it is gone already; UNAVAILABLE when it is not there because its storage is not (`storage`: the id of the storage
// that it was written to, empty: unknown).
absl::Status RemoveCheckpointFiles(const std::string& job, const std::string& path, const std::string& storage = "");

}  // namespace athanor::agent

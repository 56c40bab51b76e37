// Removes the files of one checkpoint and nothing else.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace athanor::agent {

// `path` must be absolute and end in /<job>/step-<12 digits>; a link is refused, nothing outside is followed. OK when
// it is gone already.
absl::Status RemoveCheckpointFiles(const std::string& job, const std::string& path);

}  // namespace athanor::agent

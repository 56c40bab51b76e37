// Core entries <-> keys and values of the store (docs/metadata-format.md). Keys sort so that one job's generations,
// checkpoints and events lie together and in order.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/effect.h"

namespace athanor {

std::pair<std::string, std::string> EncodeRecord(const core::PutRecord& put);
std::string EncodeKey(const core::DeleteRecord& deletion);
std::string EventKey(const core::JobId& job, int64_t sequence);

// Puts one record into `state`; events are skipped (they are read by range). DATA_LOSS names the key of a record that
// is unreadable, that lies under another's key, or that holds a value which this version does not know.
absl::Status DecodeInto(std::string_view key, std::string_view value, core::ClusterState& state);
absl::StatusOr<core::JobEventEntry> DecodeEvent(std::string_view value);
// DATA_LOSS names a generation or checkpoint whose job is missing. For a state that was read in full.
absl::Status CheckReferences(const core::ClusterState& state);

}  // namespace athanor

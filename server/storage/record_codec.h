// Core entries <-> keys and values of the store (docs/metadata-format.md). Keys sort so that one job's generations,
// checkpoints and events lie together and in order. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/effect.h"
#include "server/storage/service_time.h"

namespace athanor {

std::pair<std::string, std::string> EncodeRecord(const core::PutRecord& put, const TimeFrame& frame = {});
// The same, checked by what DecodeInto() would say of it. INTERNAL names the key and the field.
absl::StatusOr<std::pair<std::string, std::string>> EncodeChecked(const core::PutRecord& put, const TimeFrame& frame);
std::string EncodeKey(const core::DeleteRecord& deletion);
std::string EventKey(const core::JobId& job, int64_t sequence);

// Puts one record into `state`; events are skipped (they are read by range). DATA_LOSS names the key of a record that
// is unreadable, that lies under another's key, or that holds a value which this version does not know.
absl::Status DecodeInto(std::string_view key, std::string_view value, core::ClusterState& state,
                        const TimeFrame& frame = {});
absl::StatusOr<core::JobEventEntry> DecodeEvent(std::string_view value, const TimeFrame& frame = {});
// Never fails: a damaged event is shown as one that cannot be read, with the number that its key gives it.
core::JobEventEntry ReadEvent(std::string_view key, std::string_view value, const TimeFrame& frame);

// Keys of the generations and checkpoints whose job is missing. For a state that was read in full.
std::vector<std::string> Orphans(const core::ClusterState& state);
// The job that a record of this key belongs to; empty for workers and requests.
core::JobId JobOfKey(std::string_view key);

}  // namespace athanor

// The store on disk. Every commit is one synced write batch that also carries the commit counter; the counter is copied
// to a side file after each commit (made durable every 256), so that a log that lost its end on a record border is
// noticed at the next open.
//
// With less than 8 MiB free on its disk commits answer RESOURCE_EXHAUSTED, touch nothing, and may be tried again; reads
// go on. Should the disk fill up in the middle of a write to the log all the same, the answer is RESOURCE_EXHAUSTED until
// there is room, then INTERNAL: RocksDB cannot go on with such a log, the process has to end and start from the disk.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/storage/metadata_store.h"

namespace athanor {

// What this program writes. A store of a newer format is refused.
inline constexpr int kStoreFormat = 1;

// Opens or creates the store in `directory` (mode 0700) and counts its epoch up.
//   FAILED_PRECONDITION  written by a newer version (names both), or in use by another process
//   DATA_LOSS            the log is damaged, not merely torn at its end: names the cause and the repair command
//   RESOURCE_EXHAUSTED   no space
absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksDbStore(const std::string& directory);

}  // namespace athanor

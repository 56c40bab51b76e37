// The store on disk. Every commit is one synced write batch that also carries the commit counter; the counter is copied
// to a side file after each commit (commit_counter.h), so that a log that lost its end on a record border is noticed at
// the next open.
//
// With less than 8 MiB free on its disk commits answer RESOURCE_EXHAUSTED, touch nothing, and may be tried again; reads
// go on. Should the disk fill up in the middle of a write all the same, the answer is RESOURCE_EXHAUSTED too, and the
// store opens itself anew, from what is on the disk, once there is room for it. Any other failed write (quota, file
// size limit, a failing disk) is INTERNAL: what reached the disk is unknown, the process has to end and start from it.
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
//   DATA_LOSS            the log is damaged, not merely torn at its end, or holds fewer commits than were acknowledged:
//                        names what was found, what was expected, and what can be done
//   RESOURCE_EXHAUSTED   no space
absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksDbStore(const std::string& directory);

}  // namespace athanor

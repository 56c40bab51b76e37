// The store on disk. Every commit is one synced write batch that also carries the commit counter; the counter is copied
// to a side file after each commit (commit_counter.h), so that a log that lost its end on a record border is noticed at
// the next open.
//
// With less than 8 MiB free on its disk commits answer RESOURCE_EXHAUSTED, touch nothing, and may be tried again; reads
// go on. Should the disk fill up in the middle of a write all the same, the answer is RESOURCE_EXHAUSTED too, and the
// store opens itself anew, from what is on the disk, once there is room for it. Any other failed write (quota, file
// size limit, a failing disk) is INTERNAL: what reached the disk is unknown, the process has to end and start from it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/storage/metadata_store.h"
#include "server/storage/service_time.h"

namespace athanor {

// What this program writes. A store of a newer format is refused.
// 2: times are service times; a record that this program cannot use is put aside, so that an older program must not
// open what a newer one wrote.
inline constexpr int kStoreFormat = 2;

using Clocks = std::function<ClockReading()>;

// Opens or creates the store in `directory` and counts its epoch up. The folder and its files are made private (modes
// 0700, 0600), with a line in the log.
//   FAILED_PRECONDITION  written by a newer version (names both), in use by another process, or writable by everyone
//   DATA_LOSS            the log is damaged, not merely torn at its end, or holds fewer commits than were acknowledged:
//                        names what was found, what was expected, and what can be done
//   RESOURCE_EXHAUSTED   no space
absl::StatusOr<std::unique_ptr<MetadataStore>> OpenRocksDbStore(const std::string& directory,
                                                                Clocks clocks = ReadClocks);

}  // namespace athanor

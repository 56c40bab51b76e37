// How full the disks under a daemon are: gauges athanor_disk_free_bytes and athanor_disk_size_bytes, with a label
// `folder` that says what lies there.
//
//   WatchDiskSpace(registry, {{"data_dir", "/var/lib/athanor"}, {"checkpoint_root", "/mnt/checkpoints"}});
//
// A thread of its own ("athanor-disks") asks every 15 seconds, until the process ends: a network file system that hangs
// holds up nothing else, its gauges stand still. A folder that is not there has no gauges.
#pragma once

#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>

namespace athanor {

void WatchDiskSpace(const std::shared_ptr<prometheus::Registry>& registry, std::map<std::string, std::string> folders);

}  // namespace athanor

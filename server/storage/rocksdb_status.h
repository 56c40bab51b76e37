// What RocksDB answers, as a status that says what can be done.
#pragma once

#include <rocksdb/status.h>

#include <string>

#include "absl/status/status.h"

namespace athanor {

// RESOURCE_EXHAUSTED: no space; only that is worth waiting for. After any other failed write (quota, file size, a
// failing disk) RocksDB cannot say what reached the disk, and must not be asked again. DATA_LOSS: damage.
// FAILED_PRECONDITION: another process has the store.
absl::Status FromRocks(const rocksdb::Status& status, const std::string& what);

}  // namespace athanor

// A store whose tables hold damaged blocks: RocksDB itself would end at its next merge of such a table. What is intact
// is copied into a new store, which then takes the place of the old one; the old files stay as evidence in
// `damaged-N/`.
#pragma once

#include <rocksdb/db.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

// Damage met while the store was in use. It is salvaged at the next start.
void NoteDamage(const std::string& directory, const std::string& what);
// What NoteDamage() wrote; empty: nothing.
std::string NotedDamage(const std::string& directory);

struct IntactCopy {
  std::map<std::string, std::string> problems;  // by key: what is not intact, and why
};
// How a record that is not intact goes into the copy, `problem` with it; an empty key: not at all.
using AsEvidence = std::function<std::pair<std::string, std::string>(std::string_view key, std::string_view value,
                                                                     const std::string& problem)>;

// Makes the copy; the damaged store is only read. DATA_LOSS: more than `most` records are not intact, or a block cannot
// be taken apart, so that nobody knows what was in it. Where no record shows the `damage`, which may have hidden one,
// the damage itself is listed.
absl::StatusOr<IntactCopy> CopyIntact(rocksdb::DB& damaged, const rocksdb::Options& options,
                                      const std::string& directory, const AsEvidence& as_evidence, size_t most,
                                      const std::string& damage);
// Puts a copy into place, also one that an earlier start was at; nothing to do without one. The store must not be open.
absl::Status TakeCopy(const std::string& directory);

}  // namespace athanor

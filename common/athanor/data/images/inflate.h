// Files that may be compressed with gzip, and raw deflate streams as ZIP archives hold them. Internal to the module.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

// The whole file; a gzip file is unpacked. NOT_FOUND, or DATA_LOSS for a damaged stream or more than `limit` bytes.
absl::StatusOr<std::string> ReadMaybeGzip(const std::string& path, size_t limit);

// A raw deflate stream of known unpacked size. DATA_LOSS when it is damaged or of another size.
absl::StatusOr<std::string> InflateRaw(const char* bytes, size_t size, size_t unpacked);

}  // namespace athanor

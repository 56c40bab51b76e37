// gzip and Zstandard of whole files in memory, by the file's ending.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace athanor {

enum class Compression { kNone, kGzip, kZstd };

Compression CompressionOf(absl::string_view path);             // ".gz", ".zst"
absl::string_view WithoutCompression(absl::string_view path);  // "x.json.gz" -> "x.json"

// Unpack: DATA_LOSS for a damaged or cut stream, or one of more than `limit` bytes; several streams behind each other
// are read as one.
absl::StatusOr<std::string> Pack(Compression compression, const std::string& bytes);
absl::StatusOr<std::string> Unpack(Compression compression, const std::string& bytes, size_t limit);

}  // namespace athanor

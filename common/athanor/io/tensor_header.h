// The JSON header of a safetensors file, read as the reference library reads it. Internal to the module.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/io/tensor_file.h"

namespace athanor {

// A file begins with the length of its header, 8 bytes of which the lowest comes first. `begin` has so many.
inline constexpr int64_t kHeaderLengthBytes = 8;
uint64_t HeaderLength(const char* begin);

struct TensorHeader {
  std::vector<TensorSlot> slots;  // in the order of the data, which they cover without holes
  std::map<std::string, std::string> metadata;
};

// `text`: the header's bytes; `data_size`: the bytes that follow it. Of a tensor or an entry of the metadata that comes
// twice the last one counts; a field of a tensor, or the metadata, that comes twice is DATA_LOSS, as all else is that
// does not fit; the message names `file` and the place.
absl::StatusOr<TensorHeader> DecodeHeader(const std::string& file, std::string_view text, int64_t data_size);

}  // namespace athanor

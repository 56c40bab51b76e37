#include <webp/decode.h>

#include <iterator>

#include "athanor/data/image_formats.h"

namespace athanor::internal {
namespace {

bool Failed(VP8StatusCode code, std::string* error) {
  static const char* const kReasons[] = {
      "",
      "no memory for the decoder",
      "the decoder was asked for something wrong",
      "it is damaged",
      "it uses a feature that is not read",
      "decoding was suspended",
      "decoding was stopped",
      "the file is cut",
  };
  const auto at = static_cast<size_t>(code);
  *error = at < std::size(kReasons) ? kReasons[at] : "it is damaged";
  return false;
}

// What the container promises, of which the decoder could do with less.
bool IsCut(const uint8_t* bytes, size_t size) {
  constexpr size_t kFrame = 8;
  uint64_t promised = 0;
  for (size_t i = kFrame; i-- > 4;) promised = promised << 8 | bytes[i];
  return promised > size - kFrame;
}

}  // namespace

bool ReadWebpHeader(const void* bytes, size_t size, int64_t* height, int64_t* width, std::string* error) {
  const auto* data = static_cast<const uint8_t*>(bytes);
  WebPBitstreamFeatures features;
  if (const VP8StatusCode code = WebPGetFeatures(data, size, &features); code != VP8_STATUS_OK)
    return Failed(code, error);
  if (features.has_animation != 0) {
    *error = "an animation; allowed: one picture";
    return false;
  }
  if (IsCut(data, size)) return Failed(VP8_STATUS_NOT_ENOUGH_DATA, error);
  *height = features.height;
  *width = features.width;
  return true;
}

bool ReadWebp(const void* bytes, size_t size, uint8_t* rows, size_t row_bytes, std::string* error) {
  const auto* data = static_cast<const uint8_t*>(bytes);
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) return Failed(VP8_STATUS_INVALID_PARAM, error);
  if (const VP8StatusCode code = WebPGetFeatures(data, size, &config.input); code != VP8_STATUS_OK)
    return Failed(code, error);
  config.output.colorspace = MODE_RGBA;  // alpha is not multiplied in
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = rows;
  config.output.u.RGBA.stride = static_cast<int>(row_bytes);
  config.output.u.RGBA.size = row_bytes * static_cast<size_t>(config.input.height);
  const VP8StatusCode code = WebPDecode(data, size, &config);
  WebPFreeDecBuffer(&config.output);
  return code == VP8_STATUS_OK || Failed(code, error);
}

}  // namespace athanor::internal

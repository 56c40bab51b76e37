#include <dlfcn.h>
#include <webp/decode.h>

#include <iterator>
#include <optional>

#include "athanor/data/images/formats.h"

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

// What is used of libwebp. It is loaded when the first such file is read: few programs read any, and none that links
// the library by hand has to name it.
struct Decoder {
  decltype(&WebPGetFeaturesInternal) get_features = nullptr;
  decltype(&WebPInitDecoderConfigInternal) init_config = nullptr;
  decltype(&WebPDecode) decode = nullptr;
  decltype(&WebPFreeDecBuffer) free_buffer = nullptr;
};

constexpr char kLibrary[] = "libwebp.so.7";

template <class Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

std::optional<Decoder> LoadDecoder() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  Decoder decoder;
  if (library == nullptr || !Find(library, "WebPGetFeaturesInternal", &decoder.get_features) ||
      !Find(library, "WebPInitDecoderConfigInternal", &decoder.init_config) ||
      !Find(library, "WebPDecode", &decoder.decode) || !Find(library, "WebPFreeDecBuffer", &decoder.free_buffer)) {
    return std::nullopt;
  }
  return decoder;
}

// Null: `error` says what is missing.
const Decoder* LoadedDecoder(std::string* error) {
  static const std::optional<Decoder> decoder = LoadDecoder();
  if (decoder.has_value()) return &*decoder;
  *error = std::string("a WebP, for which ") + kLibrary + " is missing (Debian: libwebp7)";
  return nullptr;
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
  const Decoder* decoder = LoadedDecoder(error);
  if (decoder == nullptr) return false;
  WebPBitstreamFeatures features;
  if (const VP8StatusCode code = decoder->get_features(data, size, &features, WEBP_DECODER_ABI_VERSION);
      code != VP8_STATUS_OK) {
    return Failed(code, error);
  }
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
  const Decoder* decoder = LoadedDecoder(error);
  if (decoder == nullptr) return false;
  WebPDecoderConfig config;
  if (decoder->init_config(&config, WEBP_DECODER_ABI_VERSION) == 0) return Failed(VP8_STATUS_INVALID_PARAM, error);
  if (const VP8StatusCode code = decoder->get_features(data, size, &config.input, WEBP_DECODER_ABI_VERSION);
      code != VP8_STATUS_OK) {
    return Failed(code, error);
  }
  config.output.colorspace = MODE_RGBA;  // alpha is not multiplied in
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = rows;
  config.output.u.RGBA.stride = static_cast<int>(row_bytes);
  config.output.u.RGBA.size = row_bytes * static_cast<size_t>(config.input.height);
  const VP8StatusCode code = decoder->decode(data, size, &config);
  decoder->free_buffer(&config.output);
  return code == VP8_STATUS_OK || Failed(code, error);
}

}  // namespace athanor::internal

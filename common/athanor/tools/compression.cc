#include "athanor/tools/compression.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr int kGzipBits = 15 + 16;  // largest window, gzip framing
constexpr size_t kChunk = 1 << 18;

uInt Part(size_t left) {
  return static_cast<uInt>(std::min<size_t>(left, std::numeric_limits<uInt>::max() / 2));
}

absl::StatusOr<std::string> Gzip(const std::string& bytes) {
  z_stream stream = {};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipBits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    return absl::ResourceExhaustedError("gzip: no memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, &deflateEnd);
  std::string out, chunk(kChunk, '\0');
  size_t at = 0;
  int code = Z_OK;
  while (code != Z_STREAM_END) {
    if (stream.avail_in == 0) {
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + at));
      stream.avail_in = Part(bytes.size() - at);
      at += stream.avail_in;
    }
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = kChunk;
    code = deflate(&stream, at == bytes.size() ? Z_FINISH : Z_NO_FLUSH);
    out.append(chunk, 0, kChunk - stream.avail_out);
  }
  return out;
}

absl::StatusOr<std::string> Gunzip(const std::string& bytes, size_t limit) {
  z_stream stream = {};
  if (inflateInit2(&stream, kGzipBits) != Z_OK) return absl::ResourceExhaustedError("gzip: no memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, &inflateEnd);
  std::string out, chunk(kChunk, '\0');
  size_t at = 0;
  while (true) {
    if (stream.avail_in == 0) {
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + at));
      stream.avail_in = Part(bytes.size() - at);
      at += stream.avail_in;
    }
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = kChunk;
    const int code = inflate(&stream, Z_NO_FLUSH);
    out.append(chunk, 0, kChunk - stream.avail_out);
    if (out.size() > limit) return absl::DataLossError(absl::StrCat("more than ", limit, " bytes when unpacked"));
    if (code == Z_STREAM_END) {
      if (stream.avail_in == 0 && at == bytes.size()) return out;
      if (inflateReset(&stream) != Z_OK) return absl::InternalError("gzip: reset failed");
    } else if (code != Z_OK) {
      return absl::DataLossError(code == Z_BUF_ERROR ? "the gzip stream is cut" : "the gzip stream is damaged");
    }
  }
}

absl::StatusOr<std::string> Zstd(const std::string& bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), ZSTD_CLEVEL_DEFAULT);
  if (ZSTD_isError(size)) return absl::InternalError(absl::StrCat("zstd: ", ZSTD_getErrorName(size)));
  out.resize(size);
  return out;
}

absl::StatusOr<std::string> Unzstd(const std::string& bytes, size_t limit) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(), &ZSTD_freeDStream);
  if (stream == nullptr) return absl::ResourceExhaustedError("zstd: no memory");
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  std::string out, chunk(ZSTD_DStreamOutSize(), '\0');
  size_t open = 1;
  while (true) {
    ZSTD_outBuffer part{chunk.data(), chunk.size(), 0};
    open = ZSTD_decompressStream(stream.get(), &part, &in);
    if (ZSTD_isError(open)) return absl::DataLossError(absl::StrCat("the zstd stream: ", ZSTD_getErrorName(open)));
    out.append(chunk, 0, part.pos);
    if (out.size() > limit) return absl::DataLossError(absl::StrCat("more than ", limit, " bytes when unpacked"));
    // A full part may be the end too; asked again, the decoder would wait for another frame.
    if (in.pos == in.size && (open == 0 || part.pos < part.size)) break;
  }
  return open == 0 ? absl::StatusOr<std::string>(std::move(out)) : absl::DataLossError("the zstd stream is cut");
}

}  // namespace

Compression CompressionOf(absl::string_view path) {
  if (absl::EndsWithIgnoreCase(path, ".gz")) return Compression::kGzip;
  return absl::EndsWithIgnoreCase(path, ".zst") ? Compression::kZstd : Compression::kNone;
}

absl::string_view WithoutCompression(absl::string_view path) {
  return CompressionOf(path) == Compression::kNone ? path : path.substr(0, path.rfind('.'));
}

absl::StatusOr<std::string> Pack(Compression compression, const std::string& bytes) {
  if (compression == Compression::kNone) return bytes;
  return compression == Compression::kGzip ? Gzip(bytes) : Zstd(bytes);
}

absl::StatusOr<std::string> Unpack(Compression compression, const std::string& bytes, size_t limit) {
  if (compression == Compression::kNone) return bytes;
  return compression == Compression::kGzip ? Gunzip(bytes, limit) : Unzstd(bytes, limit);
}

}  // namespace athanor

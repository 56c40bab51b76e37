#include "athanor/data/images/inflate.h"

#include <zlib.h>

#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"

namespace athanor {

absl::StatusOr<std::string> ReadMaybeGzip(const std::string& path, size_t limit) {
  errno = 0;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), &gzclose);
  if (file == nullptr) return FileError(errno == 0 ? ENOMEM : errno, "opening", path);
  std::string bytes;
  constexpr size_t kChunk = 1 << 20;
  while (true) {
    const size_t used = bytes.size();
    bytes.resize(used + kChunk);
    const int got = gzread(file.get(), bytes.data() + used, kChunk);
    if (got < 0) {
      int code = 0;
      return absl::DataLossError(absl::StrCat(path, ": ", gzerror(file.get(), &code)));
    }
    bytes.resize(used + static_cast<size_t>(got));
    if (bytes.size() > limit) return absl::DataLossError(absl::StrCat(path, ": more than ", limit, " bytes"));
    if (static_cast<size_t>(got) < kChunk) break;
  }
  // A stream that was cut ends like a whole one, but for this.
  if (int code = Z_OK; gzerror(file.get(), &code) != nullptr && code == Z_BUF_ERROR)
    return absl::DataLossError(absl::StrCat(path, ": the compressed file is cut"));
  return bytes;
}

absl::StatusOr<std::string> InflateRaw(const char* bytes, size_t size, size_t unpacked) {
  if (size > UINT32_MAX || unpacked > UINT32_MAX) return absl::DataLossError("a compressed part of more than 4 GiB");
  constexpr size_t kMostPerByte = 1032;  // of a deflate stream: 258 bytes by two codes of one bit
  if (unpacked / kMostPerByte > size) return absl::DataLossError("a compressed part promises more than it can hold");
  z_stream stream = {};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return absl::ResourceExhaustedError("no memory to unpack");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, &inflateEnd);
  std::string out(unpacked, '\0');
  char none = 0;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes));
  stream.avail_in = static_cast<uInt>(size);
  stream.next_out = reinterpret_cast<Bytef*>(out.empty() ? &none : out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  if (inflate(&stream, Z_FINISH) != Z_STREAM_END || stream.total_out != unpacked) {
    return absl::DataLossError("a compressed part is damaged");
  }
  return out;
}

}  // namespace athanor

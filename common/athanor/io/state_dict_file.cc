#include "athanor/io/state_dict_file.h"

#include <array>
#include <cerrno>
#include <fstream>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/state_dict_archive.h"
#include "athanor/io/tensor_header.h"

namespace athanor {
namespace {

// A length that may be, and JSON behind it: lengths can look like the first bytes of anything.
bool BeginsLikeSafetensors(absl::string_view begin) {
  if (begin.size() <= static_cast<size_t>(kHeaderLengthBytes)) return false;
  const char first = begin[kHeaderLengthBytes];
  return HeaderLength(begin.data()) <= static_cast<uint64_t>(kMaxHeaderBytes) && (first == '{' || first == ' ');
}

// What people take for a state dict, by its first bytes; null: none of these.
const char* OtherKind(absl::string_view begin) {
  if (BeginsLikeSafetensors(begin)) return nullptr;
  const bool pickle = begin[0] == '\x80' && begin[1] >= 1 && begin[1] <= 5;
  // Its magic number, behind the protocol, and from protocol 4 on a frame.
  const absl::string_view magic("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 12);
  if (pickle && absl::StrContains(begin, magic))
    return "the old format of torch.save, before 1.6 or with _use_new_zipfile_serialization=False; save it again";
  if (pickle) return "a bare pickle, not of torch.save";
  if (absl::StartsWith(begin, "\x1f\x8b\x08")) return "compressed with gzip; unpack it";
  if (absl::StartsWith(begin, "\x28\xb5\x2f\xfd")) return "compressed with zstd; unpack it";
  if (absl::StartsWith(begin, "\x89HDF\r\n")) return "an HDF5 file (Keras)";
  if (absl::StartsWith(begin, "\x93NUMPY")) return "a .npy array, which has no names";
  return nullptr;
}

}  // namespace

absl::StatusOr<TensorFile> ReadStateDictFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  constexpr std::streamsize kShortest = 4;
  std::array<char, 32> head = {};
  in.read(head.data(), head.size());
  if (in.gcount() < kShortest) {
    if (!std::ifstream(path)) return FileError(errno, "open", path);
    return absl::DataLossError(absl::StrCat(path, ": shorter than any file of tensors"));
  }
  const absl::string_view begin(head.data(), static_cast<size_t>(in.gcount()));
  if (const char* other = OtherKind(begin); other != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", other, "; allowed: a safetensors file, or a zip of torch.save (PyTorch 1.6 and newer)"));
  }
  if (!absl::StartsWith(begin, "PK\x03\x04")) return ReadTensorFile(path);
  ASSIGN_OR_RETURN(const std::unique_ptr<StateDictArchive> archive, StateDictArchive::Open(path));
  TensorFile file;
  file.skipped = archive->skipped();
  RETURN_IF_ERROR(archive->ReadAll(&file.tensors));
  return file;
}

}  // namespace athanor

#include "athanor/exchange/tensor_source.h"

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/alias_files.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/exchange/sources.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;

struct FormatName {
  TensorFormat format;
  const char* name;
};
constexpr FormatName kFormats[] = {
    {TensorFormat::kAuto, "auto"},
    {TensorFormat::kCheckpoint, "athanor"},
    {TensorFormat::kSafetensors, "safetensors"},
    {TensorFormat::kHuggingFace, "hf"},
    {TensorFormat::kTorchSave, "pt"},
    {TensorFormat::kTorchDistributed, "dcp"},
    {TensorFormat::kDeepSpeed, "deepspeed"},
};

bool HasFile(const fs::path& folder, const char* name) {
  std::error_code error;
  return fs::exists(folder / name, error);
}

absl::StatusOr<TensorFormat> FormatOfFolder(const fs::path& folder) {
  if (HasFile(folder, kManifestFile) || StepOfDirName(folder.filename().string()).has_value())
    return TensorFormat::kCheckpoint;
  if (HasFile(folder, kTorchDistributedMetadata)) return TensorFormat::kTorchDistributed;
  for (const char* name : {kHuggingFaceIndex, kHuggingFaceFile, kHuggingFaceTorchIndex, kHuggingFaceTorchFile}) {
    if (HasFile(folder, name)) return TensorFormat::kHuggingFace;
  }
  if (IsDeepSpeedFolder(folder.string())) return TensorFormat::kDeepSpeed;
  return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": found neither ", kManifestFile,
                                                 " (a checkpoint), ", kTorchDistributedMetadata,
                                                 " (torch.distributed.checkpoint), ", kHuggingFaceIndex, ", ",
                                                 kHuggingFaceFile, " (Hugging Face) nor a tag of DeepSpeed"));
}

}  // namespace

absl::StatusOr<TensorFormat> DetectTensorFormat(const std::string& path) {
  std::error_code error;
  fs::path place(path);
  if (!place.has_filename()) place = place.parent_path();  // "a/"
  if (place.extension() == kPointerSuffix || fs::exists(place.string() + kPointerSuffix, error))
    return TensorFormat::kCheckpoint;
  if (fs::is_directory(place, error)) return FormatOfFolder(place);
  std::array<char, 4> begin = {};
  std::ifstream in(place, std::ios::binary);
  if (!in) return FileError(errno, "cannot open", path);
  in.read(begin.data(), begin.size());
  const bool zip = std::string_view(begin.data(), begin.size()) == std::string_view("PK\x03\x04", 4);
  return zip ? TensorFormat::kTorchSave : TensorFormat::kSafetensors;
}

absl::StatusOr<TensorFormat> ParseTensorFormat(const std::string& text) {
  std::string allowed;
  for (const FormatName& one : kFormats) {
    if (text == one.name) return one.format;
    absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", one.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("format: found '", text, "'; allowed: ", allowed));
}

const char* ToString(TensorFormat format) {
  for (const FormatName& one : kFormats) {
    if (one.format == format) return one.name;
  }
  return "";
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensorSource(const std::string& path, TensorFormat format) {
  if (format == TensorFormat::kAuto) {
    ASSIGN_OR_RETURN(format, DetectTensorFormat(path));
  }
  switch (format) {
    case TensorFormat::kCheckpoint:
      return OpenCheckpointSource(path);
    case TensorFormat::kHuggingFace:
      return OpenHuggingFaceSource(path);
    case TensorFormat::kTorchSave:
      return OpenTorchSaveSource(path);
    case TensorFormat::kTorchDistributed:
      return OpenTorchDistributedSource(path);
    case TensorFormat::kDeepSpeed:
      return OpenDeepSpeedSource(path);
    case TensorFormat::kSafetensors:
    case TensorFormat::kAuto:
      break;
  }
  return OpenSafetensorsSource(path);
}

}  // namespace athanor

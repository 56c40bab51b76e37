#include "athanor/data/image_folder.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/image_codec.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;

bool IsImage(const fs::path& path) {
  const std::string ending = absl::AsciiStrToLower(path.extension().string());
  return (ending == ".jpg" || ending == ".jpeg" || ending == ".png") && path.filename().string()[0] != '.';
}

absl::StatusOr<std::vector<fs::path>> Sorted(const fs::path& folder, bool folders) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string()[0] == '.') continue;
    if (folders ? it->is_directory() : IsImage(it->path())) paths.push_back(it->path());
  }
  if (error) return absl::NotFoundError(absl::StrCat(folder.string(), ": ", error.message()));
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

absl::StatusOr<std::shared_ptr<ImageFolder>> ImageFolder::Open(const std::string& path,
                                                               const ImageTransforms& transforms,
                                                               const ImageFolderOptions& options) {
  std::shared_ptr<ImageFolder> dataset(new ImageFolder(transforms, options));
  ASSIGN_OR_RETURN(const std::vector<fs::path> folders, Sorted(path, /*folders=*/true));
  for (const fs::path& folder : folders) {
    ASSIGN_OR_RETURN(const std::vector<fs::path> files, Sorted(folder, /*folders=*/false));
    const auto label = static_cast<int64_t>(dataset->classes_.size());
    dataset->classes_.push_back(folder.filename().string());
    for (const fs::path& file : files) dataset->samples_.push_back({file.string(), label});
  }
  if (dataset->samples_.empty()) {
    return absl::DataLossError(
        absl::StrCat(path, ": no images; allowed: a folder per class with .jpg, .jpeg or .png files"));
  }
  return dataset;
}

absl::StatusOr<Batch> ImageFolder::GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const {
  ImageCollator images(pipeline_, static_cast<int64_t>(indices.size()));
  std::vector<int64_t> labels;
  for (const int64_t index : indices) {
    if (index < 0 || index >= size())
      return absl::OutOfRangeError(absl::StrCat("sample ", index, "; allowed: 0 to ", size(), " exclusive"));
    const Sample& sample = samples_[static_cast<size_t>(index)];
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(sample.path, kMaxImageFileBytes));
    RETURN_IF_ERROR(images.Add(sample.path, bytes.data(), bytes.size(), SampleSeed(seed_, epoch, index)));
    labels.push_back(sample.label);
  }
  Batch batch;
  batch.size = static_cast<int64_t>(indices.size());
  if (indices.empty()) return batch;
  batch.input = images.Take();
  batch.target = torch::tensor(labels, torch::kInt64);
  return batch;
}

}  // namespace athanor

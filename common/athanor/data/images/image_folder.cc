#include "athanor/data/images/image_folder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/images/codec.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 32;      // of folders in each other: links may make a ring
constexpr size_t kShownNames = 5;  // in a message

bool IsImage(const fs::path& path) {
  const std::string ending = absl::AsciiStrToLower(path.extension().string());
  return std::find(ImageEndings().begin(), ImageEndings().end(), ending) != ImageEndings().end();
}

struct Listing {
  std::vector<fs::path> folders, images, others;  // without hidden ones
};

absl::StatusOr<Listing> List(const fs::path& folder) {
  std::error_code error;
  Listing listing;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string()[0] == '.') continue;
    std::error_code ignored;  // a link that leads nowhere is no folder
    (it->is_directory(ignored) ? listing.folders
     : IsImage(it->path())     ? listing.images
                               : listing.others)
        .push_back(it->path());
  }
  if (error) return FileError(error.value(), "listing", folder.string());
  std::sort(listing.folders.begin(), listing.folders.end());
  std::sort(listing.images.begin(), listing.images.end());
  return listing;
}

// The images of a class, folder after folder, in the order of torchvision's ImageFolder.
absl::Status Collect(const fs::path& root, std::vector<fs::path>* images, size_t* others) {
  std::vector<std::pair<fs::path, int>> open = {{root, 1}};
  std::vector<std::pair<std::string, std::vector<fs::path>>> found;
  while (!open.empty()) {
    const auto [folder, depth] = std::move(open.back());
    open.pop_back();
    if (depth > kMaxDepth)
      return absl::DataLossError(
          absl::StrCat(folder.string(), ": lies deeper than ", kMaxDepth, " folders; a link in a ring?"));
    ASSIGN_OR_RETURN(Listing listing, List(folder));
    for (fs::path& inner : listing.folders) open.emplace_back(std::move(inner), depth + 1);
    *others += listing.others.size();
    found.emplace_back(folder.string(), std::move(listing.images));
  }
  std::sort(found.begin(), found.end());
  for (auto& [folder, paths] : found) images->insert(images->end(), paths.begin(), paths.end());
  return absl::OkStatus();
}

absl::Status NoImages(const std::string& path, const std::vector<std::string>& classes, size_t others) {
  const size_t shown = std::min(classes.size(), kShownNames);
  std::string text =
      absl::StrCat(path, ": no image in ", classes.size() == 1 ? "class " : "the classes ",
                   absl::StrJoin(classes.begin(), classes.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < classes.size()) absl::StrAppend(&text, " and ", classes.size() - shown, " more");
  if (others > 0) absl::StrAppend(&text, " (", others, " files of other kinds are left out)");
  return absl::DataLossError(absl::StrCat(text, "; allowed: files ending with ", absl::StrJoin(ImageEndings(), " ")));
}

}  // namespace

const std::vector<std::string>& ImageEndings() {
  static const std::vector<std::string> endings = {".jpg", ".jpeg", ".png", ".webp", ".bmp"};
  return endings;
}

absl::StatusOr<std::shared_ptr<ImageFolder>> ImageFolder::Open(const std::string& path,
                                                               const ImageTransforms& transforms,
                                                               const ImageFolderOptions& options) {
  std::shared_ptr<ImageFolder> dataset(new ImageFolder(transforms, options));
  ASSIGN_OR_RETURN(const Listing root, List(path));
  std::vector<std::string> without;
  size_t others = 0;
  for (const fs::path& folder : root.folders) {
    std::vector<fs::path> images;
    size_t left_out = 0;
    RETURN_IF_ERROR(Collect(folder, &images, &left_out));
    const auto label = static_cast<int64_t>(dataset->classes_.size());
    dataset->classes_.push_back(folder.filename().string());
    for (const fs::path& image : images) dataset->samples_.push_back({image.string(), label});
    dataset->left_out_ += static_cast<int64_t>(left_out);
    if (!images.empty()) continue;
    without.push_back(folder.filename().string());
    others += left_out;
  }
  if (dataset->classes_.empty()) {
    const std::string beside =
        root.images.empty() ? "" : absl::StrCat(" (", root.images.size(), " images lie in the folder itself)");
    return absl::DataLossError(absl::StrCat(path, ": no classes", beside, "; allowed: a folder of images per class"));
  }
  if (!without.empty()) return NoImages(path, without, others);
  dataset->left_out_ += static_cast<int64_t>(root.images.size() + root.others.size());
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

// A folder with one folder of images per class.
//
//   photos/cat/1.jpg  photos/cat/2.png  photos/dog/1.jpg
//   ASSIGN_OR_RETURN(auto dataset, ImageFolder::Open("photos", transforms, {.seed = 7}));
//
// Classes are numbered in the order of their names; samples are in the order of class, folder within it, and file name,
// as torchvision has them: a class may hold folders in folders, links too. Input: N x C x H x W, what the transforms
// make of the decoded images (uint8 RGB without any); target: N, int64. Hidden files and folders are left out, and
// files with another ending than .jpg, .jpeg, .png, .webp, .bmp (in any letter case) or outside of a class, which are
// counted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"
#include "athanor/data/images/pipeline.h"
#include "athanor/data/images/transforms.h"

namespace athanor {

struct ImageFolderOptions {
  uint64_t seed = 0;  // of random transforms
  ImagePipelineOptions pipeline;
};

const std::vector<std::string>& ImageEndings();  // of files that are read, in small letters

class ImageFolder : public Dataset {
 public:
  // NOT_FOUND: no folder; DATA_LOSS: no class in it, or classes without an image, by name. No image is decoded yet.
  static absl::StatusOr<std::shared_ptr<ImageFolder>> Open(const std::string& path, const ImageTransforms& transforms,
                                                           const ImageFolderOptions& options = {});

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  // DATA_LOSS names the file that is damaged. INVALID_ARGUMENT when the images of a batch come out in different sizes.
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override { return GetInEpoch(indices, 0); }
  absl::StatusOr<Batch> GetInEpoch(const std::vector<int64_t>& indices, int64_t epoch) const override;
  bool may_leave_out() const override { return false; }

  const std::vector<std::string>& classes() const { return classes_; }
  int64_t left_out() const { return left_out_; }  // files that are not hidden and no samples
  const std::string& path(int64_t index) const { return samples_[static_cast<size_t>(index)].path; }

 private:
  struct Sample {
    std::string path;
    int64_t label;
  };
  ImageFolder(const ImageTransforms& transforms, const ImageFolderOptions& options)
      : pipeline_(transforms, options.pipeline), seed_(options.seed) {}

  std::vector<Sample> samples_;
  std::vector<std::string> classes_;
  int64_t left_out_ = 0;
  ImagePipeline pipeline_;
  uint64_t seed_;
};

}  // namespace athanor

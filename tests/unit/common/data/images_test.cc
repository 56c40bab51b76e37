#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>
#include "athanor/data/image_codec.h"
#include "athanor/data/image_folder.h"
#include "athanor/data/image_transforms.h"
#include "athanor/data/stateful_data_loader.h"
#include "athanor/data/tolerant_dataset.h"

namespace athanor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const char kPhotos[] = "/tests/data/formats/photos";

torch::Tensor Reference(const char* name) {
  std::ifstream file(std::string(ATHANOR_SOURCE_DIR) + "/tests/data/formats/reference.json");
  const nlohmann::json rows = nlohmann::json::parse(file).at(name);
  std::vector<int64_t> values;
  for (const auto& plane : rows) {
    for (const auto& row : plane) {
      for (const auto& value : row) values.push_back(value.get<int64_t>());
    }
  }
  return torch::tensor(values, torch::kInt64)
      .reshape({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size()),
                static_cast<int64_t>(rows[0][0].size())});
}

int64_t Difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kInt64) - b.to(torch::kInt64)).abs().max().item<int64_t>();
}

class ImagesTest : public testing::Test {
 protected:
  ImagesTest() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-images-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    std::filesystem::copy(std::string(ATHANOR_SOURCE_DIR) + kPhotos, folder_, std::filesystem::copy_options::recursive);
  }
  ~ImagesTest() override { std::filesystem::remove_all(folder_); }
  void Cut(const std::string& name, int64_t size) { std::filesystem::resize_file(folder_ + "/" + name, size); }
  std::shared_ptr<ImageFolder> Open(ImageTransforms transforms = {}) {
    auto dataset = ImageFolder::Open(folder_, std::move(transforms), {.seed = 3});
    EXPECT_TRUE(dataset.ok()) << dataset.status();
    return *dataset;
  }
  std::string folder_;
};

TEST_F(ImagesTest, DecodesAsPillowDoes) {
  auto jpeg = ReadImage(folder_ + "/ant/2.jpg");
  ASSERT_TRUE(jpeg.ok()) << jpeg.status();
  EXPECT_LE(Difference(*jpeg, Reference("jpeg")), 2);  // two versions of the decoder
  auto png = ReadImage(folder_ + "/ant/1.png");
  ASSERT_TRUE(png.ok()) << png.status();
  EXPECT_EQ((*png)[0][3][9].item<int>(), 30);
  EXPECT_EQ((*png)[1][3][9].item<int>(), 63);
  EXPECT_EQ((*png)[2][3][9].item<int>(), 240);
  EXPECT_EQ(Difference(*ReadImage(folder_ + "/bee/alpha.png"), *png), 0);  // alpha is dropped, not mixed in
  auto grey = ReadImage(folder_ + "/bee/grey.JPEG");
  ASSERT_TRUE(grey.ok()) << grey.status();
  EXPECT_EQ(grey->size(0), 3);
  EXPECT_EQ(Difference((*grey)[0], (*grey)[2]), 0);
  ASSERT_TRUE(WritePng(folder_ + "/ant/3.png", *png).ok());
  EXPECT_EQ(Difference(*ReadImage(folder_ + "/ant/3.png"), *png), 0);
}

TEST_F(ImagesTest, EveryCutImageIsDamagedNotGrey) {
  for (const char* name : {"ant/1.png", "ant/2.jpg"}) {
    std::ifstream file(folder_ + "/" + name, std::ios::binary);
    const std::string good((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    // Without the last mark (12 bytes of a PNG, 2 of a JPEG) all pixels are there.
    const size_t mark = name[4] == '1' ? 12 : 2;
    for (size_t size = 0; size + mark < good.size(); ++size) {
      const auto image = DecodeImage(name, good.data(), size);
      ASSERT_EQ(image.status().code(), absl::StatusCode::kDataLoss) << name << " cut to " << size;
      ASSERT_THAT(std::string(image.status().message()), HasSubstr(name));
    }
  }
}

TEST_F(ImagesTest, ClassesAndSamplesInOrder) {
  std::ofstream(folder_ + "/bee/notes.txt") << "no image";
  const auto dataset = Open();
  EXPECT_THAT(dataset->classes(), ElementsAre("ant", "bee"));
  ASSERT_EQ(dataset->size(), 4);
  EXPECT_THAT(dataset->path(2), HasSubstr("bee/alpha.png"));
  auto batch = dataset->Get({3, 0});
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->input.sizes(), torch::IntArrayRef({2, 3, 24, 32}));
  EXPECT_TRUE(torch::equal(batch->target, torch::tensor({1, 0}, torch::kInt64)));
  EXPECT_EQ(ImageFolder::Open(folder_ + "/ant", {}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ImageFolder::Open(folder_ + "/none", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ImagesTest, DamagedSamplesFailOrAreSkippedAndCounted) {
  Cut("ant/2.jpg", 300);
  const auto dataset = Open();
  EXPECT_THAT(std::string(dataset->Get({0, 1, 2}).status().message()), HasSubstr("ant/2.jpg"));
  auto tolerant = std::make_shared<TolerantDataset>(dataset);
  for (int i = 0; i < 2; ++i) {
    auto batch = tolerant->Get({0, 1, 2});
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ(batch->size, 2);
    EXPECT_EQ(batch->input.size(0), 2);
    EXPECT_TRUE(torch::equal(batch->target, torch::tensor({0, 1}, torch::kInt64)));
  }
  EXPECT_EQ(tolerant->report().damaged, 1);
  EXPECT_EQ(tolerant->report().skipped, 2);
  EXPECT_THAT(tolerant->report().errors, ElementsAre(HasSubstr("ant/2.jpg")));
  EXPECT_THAT(std::string(tolerant->Get({1}).status().message()), HasSubstr("every sample of the batch is damaged"));
  Cut("bee/alpha.png", 40);
  const TolerantDataset strict(dataset, {.max_damaged = 1});
  EXPECT_THAT(std::string(strict.Get({0, 1, 2}).status().message()), HasSubstr("max_damaged = 1"));
  auto loader = StatefulDataLoader::Make(tolerant, {.batch_size = 4, .shuffle = false, .num_workers = 2});
  auto batch = (*loader)->Next();
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->size, 2);  // what counts is what came, not what was asked for
}

TEST_F(ImagesTest, ResizesAsPillowDoes) {
  const torch::Tensor image = *ReadImage(folder_ + "/ant/1.png");
  ImageTransforms transforms;
  transforms.Add(Resize(10, 12));
  EXPECT_LE(Difference(transforms.Apply(image, 0), Reference("resized")), 1);
}

TEST_F(ImagesTest, TransformsHaveTheirShapes) {
  const torch::Tensor image = *ReadImage(folder_ + "/ant/1.png");
  const auto apply = [&](ImageTransform transform) {
    ImageTransforms one;
    one.Add(std::move(transform));
    return one.Apply(image, 1);
  };
  EXPECT_EQ(apply(Resize(12)).sizes(), torch::IntArrayRef({3, 12, 16}));
  EXPECT_TRUE(torch::equal(apply(CenterCrop(8)), image.slice(1, 8, 16).slice(2, 12, 20)));
  EXPECT_EQ(apply(RandomCrop(30, 4)).sizes(), torch::IntArrayRef({3, 30, 30}));
  EXPECT_EQ(apply(RandomResizedCrop(9)).sizes(), torch::IntArrayRef({3, 9, 9}));
  EXPECT_EQ(apply(RandomResizedCrop(9, 1, 1, 3, 3)).sizes(),
            torch::IntArrayRef({3, 9, 9}));  // no such crop: the middle
  EXPECT_TRUE(torch::equal(apply(RandomHorizontalFlip(1)), image.flip(2)));
  EXPECT_TRUE(torch::equal(apply(RandomHorizontalFlip(0)), image));
  EXPECT_EQ(apply(Grayscale()).size(0), 1);
  EXPECT_THROW(apply(CenterCrop(25)), c10::Error);
  EXPECT_THROW(apply(Normalize({0}, {1})), c10::Error);
  ImageTransforms last;
  last.Add(ToFloat()).Add(Normalize({0.5, 0, 0}, {0.25, 1, 1}));
  EXPECT_NEAR(last.Apply(image, 0)[0][3][9].item<float>(), (30 / 255.0 - 0.5) / 0.25, 1e-6);
}

TEST_F(ImagesTest, RandomnessBelongsToSampleAndEpoch) {
  ImageTransforms transforms;
  transforms.Add(RandomCrop(16)).Add(RandomHorizontalFlip());
  const auto dataset = Open(transforms);
  const torch::Tensor first = dataset->GetInEpoch({0, 1}, 5)->input;
  EXPECT_TRUE(torch::equal(first, dataset->GetInEpoch({0, 1}, 5)->input));
  EXPECT_TRUE(torch::equal(first[1], dataset->GetInEpoch({1}, 5)->input[0]));
  int same = 0;
  for (int64_t epoch = 0; epoch < 20; ++epoch) same += torch::equal(first, dataset->GetInEpoch({0, 1}, epoch)->input);
  EXPECT_LE(same, 2);
  // Through the loader: a resumed pass shows what the uninterrupted one would have shown.
  const LoaderOptions options{.batch_size = 1, .num_workers = 2, .seed = 4};
  auto whole = *StatefulDataLoader::Make(dataset, options);
  whole->StartEpoch(7);
  std::vector<torch::Tensor> expected;
  for (int i = 0; i < 4; ++i) expected.push_back(whole->Next()->input);
  auto half = *StatefulDataLoader::Make(dataset, options);
  half->StartEpoch(7);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(torch::equal(half->Next()->input, expected[i]));
  auto rest = *StatefulDataLoader::Make(dataset, options);
  ASSERT_TRUE(rest->LoadStateDict(half->StateDict()).ok());
  for (int i = 2; i < 4; ++i) EXPECT_TRUE(torch::equal(rest->Next()->input, expected[i]));
}

}  // namespace
}  // namespace athanor

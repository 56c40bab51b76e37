// Images from files to batches: formats, folders, transforms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include <jpeglib.h>

#include <nlohmann/json.hpp>
#include "athanor/data/batch_memory.h"
#include "athanor/data/images/codec.h"
#include "athanor/data/images/image_folder.h"
#include "athanor/data/images/pipeline.h"
#include "athanor/data/images/transforms.h"
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

struct JpegKind {
  const char* name;
  int across = 2, down = 2;  // luma samples per colour sample
  bool grey = false, progressive = false;
  int restart_rows = 0;
};

const JpegKind kJpegKinds[] = {{"4:2:0"},
                               {"4:2:2", 2, 1},
                               {"4:4:0", 1, 2},
                               {"4:4:4", 1, 1},
                               {"4:1:1", 4, 1},
                               {"grey", 1, 1, true},
                               {"progressive", 2, 2, false, true},
                               {"progressive 4:4:4", 1, 1, false, true},
                               {"restart marks", 2, 2, false, false, 1}};

// Patches of random colours: edges everywhere.
std::string EncodeJpeg(const JpegKind& kind, int height, int width, int patch = 3) {
  std::mt19937 random(static_cast<unsigned>(height * 1000 + width));
  const int channels = kind.grey ? 1 : 3, across = width / patch + 1;
  std::vector<uint8_t> colours(static_cast<size_t>((height / patch + 1) * across * channels));
  for (uint8_t& colour : colours) colour = static_cast<uint8_t>(random());
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_height = static_cast<JDIMENSION>(height);
  info.image_width = static_cast<JDIMENSION>(width);
  info.input_components = channels;
  info.in_color_space = kind.grey ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 90, TRUE);
  info.comp_info[0].h_samp_factor = kind.across;
  info.comp_info[0].v_samp_factor = kind.down;
  info.restart_in_rows = kind.restart_rows;
  if (kind.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(static_cast<size_t>(width * channels));
  for (int y = 0; y < height; ++y) {
    for (int i = 0; i < width * channels; ++i) {
      const int place = (y / patch * across + i / channels / patch) * channels + i % channels;
      row[static_cast<size_t>(i)] = colours[static_cast<size_t>(place)];
    }
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  std::string encoded(reinterpret_cast<char*>(bytes), size);
  jpeg_destroy_compress(&info);
  std::free(bytes);
  return encoded;
}

absl::StatusOr<torch::Tensor> DecodedBox(const std::string& bytes, const ImageBox& box, int reduction = 1) {
  ImagePixels pixels;
  const absl::Status status = pixels.Decode("test", bytes.data(), bytes.size(), box, reduction);
  if (!status.ok()) return status;
  torch::Tensor found = torch::empty({3, box.height, box.width}, torch::kUInt8);
  for (int64_t y = 0; y < box.height; ++y) {
    SplitPlanes(pixels.rows().data + static_cast<size_t>(y) * pixels.rows().row_bytes, box.width,
                found[0][y].data_ptr<uint8_t>(), found[1][y].data_ptr<uint8_t>(), found[2][y].data_ptr<uint8_t>());
  }
  return found;
}

ImageBox RandomBox(std::mt19937& random, int64_t height, int64_t width) {
  ImageBox box;
  box.height = 1 + static_cast<int64_t>(random()) % height;
  box.width = 1 + static_cast<int64_t>(random()) % width;
  box.top = static_cast<int64_t>(random()) % (height - box.height + 1);
  box.left = static_cast<int64_t>(random()) % (width - box.width + 1);
  return box;
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

TEST_F(ImagesTest, FillBytesBeforeTheEndOfAJpegAreNoDamage) {
  const std::string good = EncodeJpeg({"4:2:0"}, 97, 131);
  const torch::Tensor image = *DecodeImage("good", good.data(), good.size());
  for (const std::string& fill :
       {std::string(8, '\0'), std::string(5000, '\0'), std::string("\x11\x22\x33"), std::string(40, '\x55')}) {
    std::string filled = good;
    filled.insert(good.size() - 2, fill);
    const auto found = DecodeImage("filled", filled.data(), filled.size());
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_TRUE(torch::equal(*found, image));
  }
  std::string long_noise = good;  // what a decoder that lost its way leaves
  for (int i = 0; i < 100; ++i) long_noise.insert(good.size() - 2, 1, static_cast<char>(i));
  EXPECT_EQ(DecodeImage("noise", long_noise.data(), long_noise.size()).status().code(), absl::StatusCode::kDataLoss);
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
  EXPECT_EQ(Difference(transforms.Apply(image, 0), Reference("resized")), 0);
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

TEST_F(ImagesTest, PartOfAJpegIsDecodedAsInTheWhole) {
  std::mt19937 random(1);
  for (const JpegKind& kind : kJpegKinds) {
    for (const auto& [height, width] : {std::pair{97, 131}, std::pair{64, 48}, std::pair{9, 17}, std::pair{1, 1}}) {
      const std::string bytes = EncodeJpeg(kind, height, width);
      const torch::Tensor whole = *DecodeImage(kind.name, bytes.data(), bytes.size());
      for (const int reduction : {1, 2, 4, 8}) {
        const int64_t rows = Reduced(height, reduction), columns = Reduced(width, reduction);
        const auto reduced = DecodedBox(bytes, {.height = rows, .width = columns}, reduction);
        ASSERT_TRUE(reduced.ok()) << reduced.status();
        if (reduction == 1) ASSERT_TRUE(torch::equal(*reduced, whole)) << kind.name;
        for (int i = 0; i < 40; ++i) {
          const ImageBox box = RandomBox(random, rows, columns);
          const auto part = DecodedBox(bytes, box, reduction);
          ASSERT_TRUE(part.ok()) << part.status();
          ASSERT_TRUE(torch::equal(
              *part, reduced->slice(1, box.top, box.top + box.height).slice(2, box.left, box.left + box.width)))
              << kind.name << " " << height << " x " << width << " / " << reduction << ": " << box.height << " x "
              << box.width << " at " << box.top << ", " << box.left;
        }
      }
    }
  }
}

TEST_F(ImagesTest, BoxesAreChecked) {
  const std::string bytes = EncodeJpeg({"4:2:0"}, 20, 30);
  for (const ImageBox box : {ImageBox{0, 0, 21, 1}, ImageBox{0, 30, 1, 1}, ImageBox{-1, 0, 1, 1}, ImageBox{}}) {
    EXPECT_EQ(DecodedBox(bytes, box).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(DecodedBox(bytes, {0, 0, 1, 1}, 3).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DecodedBox(bytes, {0, 0, 20, 30}, 2).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ImagesTest, CutsAreNoticedBelowThePartThatIsDecoded) {
  for (const JpegKind& kind : kJpegKinds) {
    const std::string good = EncodeJpeg(kind, 60, 50);
    for (const ImageBox box : {ImageBox{0, 0, 5, 50}, ImageBox{30, 20, 8, 8}, ImageBox{50, 0, 10, 50}}) {
      for (size_t size = 0; size < good.size(); size += 5) {
        const auto part = DecodedBox(good.substr(0, size), box);
        ASSERT_EQ(part.status().code(), absl::StatusCode::kDataLoss) << kind.name << " cut to " << size;
      }
      EXPECT_TRUE(DecodedBox(good, box).ok()) << kind.name;
      EXPECT_TRUE(DecodedBox(good + "what a camera adds", box).ok()) << kind.name;
    }
  }
}

TEST_F(ImagesTest, DamageIsNoticedAsFarAsTheDocumentationSays) {
  const std::string good = EncodeJpeg({"4:2:0"}, 400, 50);
  const ImageBox top = {0, 0, 50, 50}, bottom = {390, 0, 5, 50}, whole = {0, 0, 400, 50};
  std::string noise = good, zeros = good;
  std::mt19937 random(4);
  for (size_t i = good.size() / 2; i < good.size() / 2 + 4096; ++i) noise[i] = static_cast<char>(random());
  for (const ImageBox& box : {top, bottom, whole})
    EXPECT_EQ(DecodedBox(noise, box).status().code(), absl::StatusCode::kDataLoss);
  for (size_t i = good.size() / 2; i < good.size() / 2 + 4096; ++i) zeros[i] = 0;
  EXPECT_EQ(DecodedBox(zeros, whole).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(torch::equal(*DecodedBox(zeros, top), *DecodedBox(good, top)));
}

struct Chain {
  const char* name;
  std::vector<ImageTransform> transforms;
  int64_t fused;
};

std::vector<Chain> Chains() {
  const ImageTransform normalize = Normalize({0.485, 0.456, 0.406}, {0.229, 0.224, 0.225});
  const ImageTransform inverted = [](const torch::Tensor& image, at::Generator& random) {
    return 255 - image - torch::randint(2, image.sizes(), random, torch::kUInt8);
  };
  return {{"nothing", {}, 0},
          {"training", {RandomResizedCrop(40), RandomHorizontalFlip(), ToFloat(), normalize}, 4},
          {"smaller", {RandomResizedCrop(9), RandomHorizontalFlip(), ToFloat(), normalize}, 4},
          {"larger", {RandomResizedCrop(200), RandomHorizontalFlip()}, 2},
          {"evaluation", {Resize(48), CenterCrop(32), ToFloat(), normalize}, 4},
          {"one side", {Resize(97, 40), ToFloat()}, 2},
          {"other side", {Resize(40, 131), RandomHorizontalFlip()}, 2},
          {"crops", {RandomCrop(90), RandomHorizontalFlip(), CenterCrop(64), RandomCrop(33), ToFloat()}, 5},
          {"flip last", {RandomResizedCrop(40), ToFloat(), normalize, RandomHorizontalFlip(), RandomCrop(31)}, 5},
          {"flip first", {RandomHorizontalFlip(1), RandomResizedCrop(40), ToFloat()}, 1},
          {"two sizes", {Resize(80), RandomCrop(60), Resize(40), ToFloat()}, 2},
          {"floats resized", {CenterCrop(80), ToFloat(), Resize(40)}, 2},
          {"padded", {RandomCrop(97, 4), ToFloat()}, 0},
          {"grey", {RandomResizedCrop(40), Grayscale(), ToFloat(), Normalize({0.5}, {0.5})}, 1},
          {"own", {RandomResizedCrop(40), inverted, RandomHorizontalFlip(), ToFloat()}, 1}};
}

TEST_F(ImagesTest, OnePassGivesWhatTheChainGives) {
  std::vector<std::string> files;
  for (const JpegKind& kind : kJpegKinds) files.push_back(EncodeJpeg(kind, 97, 131));
  ASSERT_TRUE(WritePng(folder_ + "/a.png", *DecodeImage("a", files[0].data(), files[0].size())).ok());
  std::ifstream file(folder_ + "/a.png", std::ios::binary);
  files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  for (const Chain& chain : Chains()) {
    ImageTransforms transforms;
    for (const ImageTransform& transform : chain.transforms) transforms.Add(transform);
    const ImagePipeline pipeline(transforms);
    EXPECT_EQ(pipeline.fused(), chain.fused) << chain.name;
    for (uint64_t seed = 0; seed < 3; ++seed) {
      ImageCollator collator(pipeline, static_cast<int64_t>(files.size()));
      std::vector<torch::Tensor> expected;
      for (const std::string& bytes : files) {
        const absl::Status added = collator.Add("test", bytes.data(), bytes.size(), seed);
        ASSERT_TRUE(added.ok()) << chain.name << ": " << added;
        expected.push_back(transforms.Apply(*DecodeImage("test", bytes.data(), bytes.size()), seed));
      }
      ASSERT_TRUE(torch::equal(collator.Take(), torch::stack(expected))) << chain.name << ", seed " << seed;
    }
  }
}

TEST_F(ImagesTest, MemoryOfBatchesIsUsedAgain) {
  auto memory = std::make_shared<BatchMemory>(/*limit=*/1000);
  torch::Tensor first = memory->Empty({10, 10}, torch::kFloat32);
  const torch::Tensor second = memory->Empty({10, 10}, torch::kFloat32);
  EXPECT_NE(first.data_ptr(), second.data_ptr());
  const void* place = first.data_ptr();
  torch::Tensor part = first[3];
  first = torch::Tensor();
  EXPECT_EQ(memory->free_bytes(), 0);
  part = torch::Tensor();
  EXPECT_EQ(memory->free_bytes(), 400);
  EXPECT_NE(memory->Empty({10, 1}, torch::kFloat32).data_ptr(), place);  // far too large for it
  torch::Tensor again = memory->Empty({9, 10}, torch::kFloat32);
  EXPECT_EQ(again.data_ptr(), place);
  torch::Tensor large = memory->Empty({240}, torch::kFloat32);
  again = torch::Tensor();
  large = torch::Tensor();
  EXPECT_EQ(memory->free_bytes(), 960);  // the others had to go
  again = memory->Empty({240}, torch::kFloat32);
  memory.reset();
  again.fill_(1);
}

TEST_F(ImagesTest, FailedImagesLeaveTheBatchAsItWas) {
  const std::string small = EncodeJpeg({"4:2:0"}, 20, 30), large = EncodeJpeg({"4:2:0"}, 40, 30);
  const ImagePipeline plain{ImageTransforms()};
  ImageCollator batch(plain, 3);
  EXPECT_FALSE(batch.Take().defined());
  EXPECT_EQ(batch.Add("cut.jpg", large.data(), 500, 0).code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(batch.Add("small.jpg", small.data(), small.size(), 0).ok());
  const absl::Status other = batch.Add("large.jpg", large.data(), large.size(), 0);
  EXPECT_EQ(other.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.message()), HasSubstr("large.jpg: [3, 40, 30]"));
  ASSERT_TRUE(batch.Add("small.jpg", small.data(), small.size(), 0).ok());
  EXPECT_EQ(batch.Take().sizes(), torch::IntArrayRef({2, 3, 20, 30}));
  ImageTransforms crop;
  const ImagePipeline too_large(crop.Add(CenterCrop(25)));
  const absl::Status thrown = ImageCollator(too_large, 1).Add("small.jpg", small.data(), small.size(), 0);
  EXPECT_THAT(std::string(thrown.message()), HasSubstr("small.jpg"));
  EXPECT_THAT(std::string(thrown.message()), HasSubstr("a crop of 25 x 25 does not fit"));
}

TEST_F(ImagesTest, ReducedDecodingIsNearAndOnlyForLargeCrops) {
  const std::string bytes = EncodeJpeg({"4:2:0"}, 800, 600, /*patch=*/100);
  ImageTransforms transforms;
  transforms.Add(Resize(100, 75));
  const ImagePipeline exact(transforms), reduced(transforms, {.reduced_decode = true});
  ImageCollator one(exact, 1), other(reduced, 1);
  ASSERT_TRUE(one.Add("exact", bytes.data(), bytes.size(), 0).ok());
  ASSERT_TRUE(other.Add("reduced", bytes.data(), bytes.size(), 0).ok());
  const torch::Tensor a = one.Take().to(torch::kFloat32), b = other.Take().to(torch::kFloat32);
  EXPECT_FALSE(torch::equal(a, b));
  EXPECT_LE((a - b).abs().mean().item<double>(), 5);
  ImageTransforms half;
  half.Add(RandomResizedCrop(410));
  const ImagePipeline same(half), also(half, {.reduced_decode = true});
  ImageCollator left(same, 1), right(also, 1);
  ASSERT_TRUE(left.Add("exact", bytes.data(), bytes.size(), 0).ok());
  ASSERT_TRUE(right.Add("reduced", bytes.data(), bytes.size(), 0).ok());
  EXPECT_TRUE(torch::equal(left.Take(), right.Take()));
}

TEST_F(ImagesTest, DrawsAreThoseOfTorchRand) {
  const torch::Tensor image = torch::arange(6, torch::kUInt8).view({1, 2, 3});
  ImageTransforms transforms;
  transforms.Add(RandomHorizontalFlip(0.3)).Add(RandomHorizontalFlip(0.6));
  for (uint64_t seed = 0; seed < 50; ++seed) {
    at::Generator random = at::detail::createCPUGenerator(seed);
    const bool first = torch::rand({}, random, torch::kFloat64).item<double>() < 0.3;
    const bool second = torch::rand({}, random, torch::kFloat64).item<double>() < 0.6;
    EXPECT_TRUE(torch::equal(transforms.Apply(image, seed), first != second ? image.flip(2) : image));
  }
}

TEST_F(ImagesTest, EveryNumberOfThreadsGivesTheSameEpochs) {
  for (int i = 0; i < 20; ++i) {
    const std::string bytes = EncodeJpeg(kJpegKinds[i % std::size(kJpegKinds)], 60 + i, 90 - i);
    std::ofstream(folder_ + "/ant/more" + std::to_string(i) + ".jpg", std::ios::binary) << bytes;
  }
  ImageTransforms transforms;
  transforms.Add(RandomResizedCrop(24)).Add(RandomHorizontalFlip()).Add(ToFloat()).Add(Normalize({0, 0, 0}, {1, 1, 1}));
  const auto dataset = Open(transforms);
  std::vector<torch::Tensor> expected;
  for (const int workers : {0, 1, 3}) {
    auto loader = *StatefulDataLoader::Make(dataset, {.batch_size = 5, .num_workers = workers, .seed = 2});
    size_t seen = 0;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      loader->StartEpoch(epoch);
      for (int64_t i = 0; i < loader->batches_per_epoch(); ++i, ++seen) {
        const auto batch = loader->Next();
        ASSERT_TRUE(batch.ok()) << batch.status();
        if (workers == 0) expected.push_back(batch->input);
        ASSERT_TRUE(torch::equal(batch->input, expected[seen])) << workers << " workers, batch " << seen;
      }
    }
  }
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

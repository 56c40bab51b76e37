// Decoding is compared with Pillow's in tests/integration/foreign_images_test.py.
#include "athanor/data/images/image_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace athanor {
namespace {

using testing::HasSubstr;

class ImageFolderTest : public testing::Test {
 protected:
  ImageFolderTest() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-folder-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    std::filesystem::copy(std::string(ATHANOR_SOURCE_DIR) + "/tests/data/formats/photos", folder_,
                          std::filesystem::copy_options::recursive);
  }
  ~ImageFolderTest() override { std::filesystem::remove_all(folder_); }
  std::shared_ptr<ImageFolder> Open() const {
    auto dataset = ImageFolder::Open(folder_, {});
    EXPECT_TRUE(dataset.ok()) << dataset.status();
    return *dataset;
  }
  std::string folder_;
};

TEST_F(ImageFolderTest, FoldersInFoldersAndClassesWithoutImages) {
  std::filesystem::create_directories(folder_ + "/ant/old/b");
  for (const char* name : {"/ant/old/z.PNG", "/ant/old/b/y.webp", "/ant/.hidden.png"})
    std::filesystem::copy(folder_ + "/ant/1.png", folder_ + name);
  std::ofstream(folder_ + "/ant/old/notes.txt") << "no image";
  const auto dataset = Open();
  ASSERT_EQ(dataset->size(), 6);
  EXPECT_THAT(dataset->path(2), HasSubstr("ant/old/z.PNG"));
  EXPECT_THAT(dataset->path(3), HasSubstr("ant/old/b/y.webp"));  // folder after folder, as torchvision walks
  EXPECT_EQ(dataset->left_out(), 1);
  EXPECT_EQ(dataset->Get({3})->input.size(3), 32) << "the format is that of the bytes";
  std::filesystem::create_directory(folder_ + "/cat");
  std::filesystem::create_directory(folder_ + "/dog");
  std::ofstream(folder_ + "/dog/x.tiff") << "II*";
  const auto problem = std::string(ImageFolder::Open(folder_, {}).status().message());
  EXPECT_THAT(problem, HasSubstr("no image in the classes cat, dog (1 files of other kinds are left out)"));
  EXPECT_THAT(problem, HasSubstr("allowed: files ending with .jpg .jpeg .png .webp .bmp"));
  std::filesystem::create_directory_symlink(folder_ + "/cat", folder_ + "/cat/ring");
  EXPECT_THAT(std::string(ImageFolder::Open(folder_, {}).status().message()), HasSubstr("a link in a ring?"));
  EXPECT_THAT(std::string(ImageFolder::Open(folder_ + "/ant/old/b", {}).status().message()),
              HasSubstr("no classes (1 images lie in the folder itself)"));
}

}  // namespace
}  // namespace athanor

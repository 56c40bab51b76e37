// The datasets: tensors, CSV tables, text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "athanor/data/formats/byte_text_dataset.h"
#include "athanor/data/tensor_dataset.h"

namespace athanor {
namespace {

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(TensorDatasetTest, GathersRowsInTheAskedOrder) {
  auto dataset = TensorDataset::Make(torch::arange(12).reshape({4, 3}), torch::arange(4));
  ASSERT_TRUE(dataset.ok());
  absl::StatusOr<Batch> batch = (*dataset)->Get({2, 0, 2});
  ASSERT_TRUE(batch.ok());
  EXPECT_TRUE(torch::equal(batch->target, torch::tensor({2, 0, 2}, torch::kInt64)));
  EXPECT_EQ(batch->input[1][2].item<int64_t>(), 2);
  EXPECT_EQ(batch->size, 3);
  EXPECT_EQ((*dataset)->Get({4}).status().message(), "sample 4; allowed: 0 to 4 exclusive");
}

TEST(TensorDatasetTest, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(TensorDataset::Make(torch::zeros({0, 3}), {}).ok());
  EXPECT_FALSE(TensorDataset::Make(torch::zeros({4, 3}), torch::zeros({3})).ok());
  EXPECT_TRUE(TensorDataset::Make(torch::zeros({4, 3}), {}).ok());
}

TEST(CsvTest, ReadsFeaturesAndLabels) {
  const std::string path = WriteFile("good.csv", "a,b,class\r\n0, 1.5,7\r\n\n-2,3e1,0\n");
  auto table = ReadCsv(path, {.header = true});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_TRUE(torch::equal(table->features, torch::tensor({{0.0F, 1.5F}, {-2.0F, 30.0F}})));
  EXPECT_TRUE(torch::equal(table->target, torch::tensor({7, 0}, torch::kInt64)));
  EXPECT_THAT(table->columns, testing::ElementsAre("a", "b", "class"));
  auto first =
      ReadCsv(WriteFile("tab.csv", "1.5\t2\n"), {.delimiter = '\t', .target_column = 0, .integer_target = false});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->target.item<float>(), 1.5F);
}

TEST(CsvTest, ReadsWhatSpreadsheetsWrite) {
  for (const char* text :
       {"\xef\xbb\xbf"
        "1.5,2,9007199254740993\n3,4,-5\n",
        "+1.5,+2,9007199254740993\r\n3,4,-5\r\n", "\"1.5\",\"2\",\"9007199254740993\"\n3,4,-5",
        "15E-1,.2e1,9007199254740993\r3.,4,-5.0\r", " \"1.5\" ,\t2, 9007199254740993\n \n3,4,-5\n"}) {
    const auto table = ReadCsv(WriteFile("sheet.csv", text), {});
    ASSERT_TRUE(table.ok()) << table.status() << " for " << text;
    EXPECT_TRUE(torch::equal(table->features, torch::tensor({{1.5F, 2.0F}, {3.0F, 4.0F}}))) << text;
    EXPECT_TRUE(torch::equal(table->target, torch::tensor({int64_t{9007199254740993}, int64_t{-5}}))) << text;
  }
  const auto named = ReadCsv(WriteFile("named.csv", "\xef\xbb\xbf\"x, y\",class\r\n1,2\r\n"), {.header = true});
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_THAT(named->columns, testing::ElementsAre("x, y", "class"));
}

TEST(CsvTest, NamesTheDamagedPlace) {
  const auto message = [](const std::string& text, CsvOptions options = {}) {
    const std::string path = WriteFile("bad.csv", text);
    const std::string message(ReadCsv(path, options).status().message());
    return message.substr(std::min(message.size(), path.size()));
  };
  EXPECT_EQ(message("1,2\n3,x\n"), ":2: column 2: found \"x\"; allowed: a number");
  EXPECT_EQ(message("1,2\n3\n"), ":2: found 1 columns; allowed: 2 as before");
  EXPECT_EQ(message("1,2.5\n"), ":1: column 2: found \"2.5\"; allowed: a whole number");
  EXPECT_EQ(message("1,nan\n"), ":1: column 2: found \"nan\"; allowed: a number");
  EXPECT_EQ(message("1,\n"), ":1: column 2: found \"\"; allowed: a number");
  EXPECT_EQ(message(""), ": no rows");
  EXPECT_EQ(message("x,y\n1,2\n"), ":1: column 1: found \"x\"; allowed: a number (a line of names? say so: header)");
  EXPECT_EQ(message("1,\"1,234\"\n"), ":1: column 2: found \"1,234\"; allowed: a number");
  EXPECT_EQ(message("1;2\n"), ":1: found 1 column; allowed: at least 2 (delimited by ';'?)");
  EXPECT_EQ(message("1,2\n\"3,4\n"), ":2: a quote is not closed");
  EXPECT_EQ(message("\xff\xfe"
                    "1"),
            ": found UTF-16; allowed: UTF-8 (in Excel: \"CSV UTF-8\")");
  EXPECT_EQ(ReadCsv("/nowhere/x.csv", {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadCsv(WriteFile("c.csv", "1,2\n"), {.target_column = 2}).status().message(),
            "csv target_column: found 2; allowed with 2 columns: -2 to 1");
}

TEST(ByteTextTest, WindowsPredictTheNextByte) {
  auto dataset = ByteTextDataset::FromText("abcabcabd", {.block_size = 4});
  ASSERT_TRUE(dataset.ok());
  EXPECT_EQ((*dataset)->vocabulary_size(), 4);
  EXPECT_EQ((*dataset)->size(), 2);
  absl::StatusOr<Batch> batch = (*dataset)->Get({1, 0});
  ASSERT_TRUE(batch.ok());
  EXPECT_TRUE(torch::equal(batch->input[0], torch::tensor({1, 2, 0, 1}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(batch->target[0], torch::tensor({2, 0, 1, 3}, torch::kInt64)));
  EXPECT_FALSE((*dataset)->Get({2}).ok());
  auto overlapping = ByteTextDataset::FromText("abcabcabd", {.block_size = 4, .stride = 1, .compact = false});
  EXPECT_EQ((*overlapping)->size(), 5);
  EXPECT_EQ((*overlapping)->Get({0})->input[0][0].item<int64_t>(), 'a');
}

TEST(ByteTextTest, PartsShareTheVocabularyAndDoNotOverlap) {
  const std::string path = WriteFile("text.txt", std::string(90, 'x') + std::string(10, 'y'));
  auto train = ByteTextDataset::Open(path, {.block_size = 9, .end = 0.9});
  auto test = ByteTextDataset::Open(path, {.block_size = 9, .begin = 0.9});
  ASSERT_TRUE(train.ok() && test.ok());
  EXPECT_EQ((*train)->vocabulary(), (*test)->vocabulary());
  EXPECT_EQ((*test)->Get({0})->input.min().item<int64_t>(), 1);
  EXPECT_EQ((*train)->Get({(*train)->size() - 1})->target.max().item<int64_t>(), 0);
}

TEST(ByteTextTest, RefusesWhatCannotWork) {
  EXPECT_EQ(ByteTextDataset::FromText("abc", {.block_size = 3}).status().message(),
            "the text part has 3 bytes; allowed: at least block_size + 1 = 4");
  EXPECT_FALSE(ByteTextDataset::FromText("abc", {.block_size = 0}).ok());
  EXPECT_FALSE(ByteTextDataset::FromText("abc", {.block_size = 1, .begin = 0.5, .end = 0.5}).ok());
  EXPECT_EQ(ByteTextDataset::Open("/nowhere.txt", {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace athanor

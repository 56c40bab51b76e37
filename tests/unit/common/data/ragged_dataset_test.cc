#include "athanor/data/ragged_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "athanor/data/stateful_data_loader.h"
#include "athanor/data/tolerant_dataset.h"
#include "athanor/nested/ops/shape.h"

namespace athanor {
namespace {

using testing::HasSubstr;

std::vector<torch::Tensor> Samples() {
  std::vector<torch::Tensor> samples;
  for (int64_t i = 0; i < 10; ++i) samples.push_back(torch::full({i % 4 + 1, 2}, i, torch::kFloat32));
  return samples;
}

TEST(RaggedDatasetTest, BatchesAreNestedTensorsInTheOrderAskedFor) {
  const auto dataset = RaggedDataset::Make(Samples(), torch::arange(10), {.padding_value = -1});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const auto batch = (*dataset)->Get({3, 0, 9});
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_TRUE(batch->ragged.has_value());
  EXPECT_FALSE(batch->input.defined());
  EXPECT_EQ(batch->size, 3);
  EXPECT_TRUE(torch::equal(batch->target, torch::tensor({3, 0, 9})));
  EXPECT_THAT(batch->ragged->tensor().sizes(), testing::ElementsAre(3, 4, 2));
  EXPECT_EQ(batch->ragged->concat().size(0), 4 + 1 + 2) << "without padding";
  EXPECT_EQ(batch->ragged->tensor()[1][3][0].item<float>(), -1);
  EXPECT_TRUE(torch::equal(batch->ragged->Element(2), Samples()[9]));
  EXPECT_EQ((*dataset)->Get({10}).status().message(), "sample 10; allowed: 0 to 10 exclusive");
}

TEST(RaggedDatasetTest, MistakesAreNamed) {
  EXPECT_THAT(std::string(RaggedDataset::Make({}, {}).status().message()), HasSubstr("no samples"));
  EXPECT_THAT(std::string(RaggedDataset::Make({torch::ones({2}), torch::ones({2, 2})}, {}).status().message()),
              HasSubstr("sample 1 has 2 dims of Float; allowed: as the first, 1 dims of Float"));
  EXPECT_THAT(std::string(RaggedDataset::Make(Samples(), torch::arange(9)).status().message()),
              HasSubstr("10 samples, but 9 targets"));
}

TEST(RaggedDatasetTest, ALoaderDividesShufflesAndResumesThem) {
  const auto dataset = *RaggedDataset::Make(Samples(), torch::arange(10));
  LoaderOptions options;
  options.batch_size = 3;
  options.shuffle = true;
  options.num_workers = 2;
  options.seed = 5;
  const auto seen = [](StatefulDataLoader& loader, std::vector<int64_t>* out) {
    const auto batch = loader.Next();
    if (!batch.ok()) return false;
    for (int64_t i = 0; i < batch->size; ++i) {
      out->push_back(batch->target[i].item<int64_t>());
      EXPECT_EQ(batch->ragged->Element(i)[0][0].item<float>(), batch->target[i].item<float>());
    }
    return true;
  };
  auto loader = *StatefulDataLoader::Make(dataset, options);
  loader->StartEpoch(0);
  std::vector<int64_t> whole, first;
  while (seen(*loader, &whole)) {
  }
  EXPECT_THAT(whole, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  auto again = *StatefulDataLoader::Make(dataset, options);
  again->StartEpoch(0);
  ASSERT_TRUE(seen(*again, &first));
  const nlohmann::json state = again->StateDict();
  auto resumed = *StatefulDataLoader::Make(dataset, options);
  ASSERT_TRUE(resumed->LoadStateDict(state).ok());
  while (seen(*resumed, &first)) {
  }
  EXPECT_EQ(first, whole);
}

// Damaged at one sample.
class Damaged : public Dataset {
 public:
  explicit Damaged(std::shared_ptr<Dataset> inner) : inner_(std::move(inner)) {}
  int64_t size() const override { return inner_->size(); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override {
    for (const int64_t index : indices) {
      if (index == 4) return absl::DataLossError("sample 4 is damaged");
    }
    return inner_->Get(indices);
  }

 private:
  std::shared_ptr<Dataset> inner_;
};

TEST(RaggedDatasetTest, DamagedSamplesCanBeLeftOut) {
  const TolerantDataset tolerant(std::make_shared<Damaged>(*RaggedDataset::Make(Samples(), torch::arange(10))),
                                 TolerantOptions{.max_damaged = 1});
  const auto batch = tolerant.Get({3, 4, 5});
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->size, 2);
  EXPECT_TRUE(torch::equal(batch->target, torch::tensor({3, 5})));
  EXPECT_TRUE(torch::equal(batch->ragged->Element(1), Samples()[5]));
}

std::vector<torch::Tensor> Tags() {
  std::vector<torch::Tensor> tags;
  for (int64_t i = 0; i < 10; ++i) tags.push_back(torch::full({i % 4 + 1}, 10 * i, torch::kInt64));
  return tags;
}

TEST(RaggedDatasetTest, TargetsMayBeOfAnySize) {
  const auto dataset = RaggedDataset::MakeWithRaggedTargets(Samples(), Tags(), {}, {.padding_value = -100});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const auto batch = (*dataset)->Get({3, 0, 9});
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_TRUE(batch->ragged_target.has_value());
  EXPECT_FALSE(batch->target.defined());
  EXPECT_EQ(batch->ragged_target->structure()->packed_sizes(), batch->ragged->structure()->packed_sizes());
  EXPECT_TRUE(torch::equal(batch->ragged_target->Element(2), Tags()[9]));
  EXPECT_EQ(batch->ragged_target->tensor()[1][3].item<int64_t>(), -100);
  const auto few = RaggedDataset::MakeWithRaggedTargets(Samples(), {torch::ones({2})});
  EXPECT_THAT(std::string(few.status().message()), HasSubstr("10 samples, but 1 targets"));
  std::vector<torch::Tensor> mixed = Tags();
  mixed[4] = torch::ones({2});
  EXPECT_THAT(std::string(RaggedDataset::MakeWithRaggedTargets(Samples(), mixed).status().message()),
              HasSubstr("target 4 has 1 dims of Float; allowed: as the first, 1 dims of Long"));
  const TolerantDataset tolerant(std::make_shared<Damaged>(*dataset), TolerantOptions{.max_damaged = 1});
  EXPECT_TRUE(torch::equal(tolerant.Get({3, 4, 5})->ragged_target->Element(1), Tags()[5]));
  auto loader = *StatefulDataLoader::Make(*dataset, {.batch_size = 10, .shuffle = false});
  loader->StartEpoch(0);
  EXPECT_TRUE(torch::equal(loader->Next()->ragged_target->concat(), torch::cat(Tags())));
}

class RaggedJsonLinesTest : public testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<RaggedDataset>> Open(const std::string& text, const std::string& target = "y",
                                                      TargetSizes sizes = TargetSizes::kOne) {
    const std::string path = testing::TempDir() + "/athanor_ragged.jsonl";
    std::ofstream(path) << text;
    auto dataset = OpenRaggedJsonLines(path, {.input = "x", .target = target}, sizes);
    std::filesystem::remove(path);
    return dataset;
  }
};

TEST_F(RaggedJsonLinesTest, ReadsListsOfAnyLength) {
  const auto whole = Open("{\"x\": [1, 2, 3], \"y\": 0}\n\n{\"x\": [4], \"y\": 1}\n{\"x\": [], \"y\": 1}\n");
  ASSERT_TRUE(whole.ok()) << whole.status();
  const auto batch = (*whole)->Get({0, 1, 2});
  EXPECT_EQ(batch->ragged->concat().scalar_type(), torch::kInt64);
  EXPECT_EQ(batch->ragged->concat().numel(), 4);
  EXPECT_EQ(batch->target.scalar_type(), torch::kInt64);
  const auto rows = Open("{\"x\": [[1, 2], [3, 4.5]]}\n{\"x\": [[5, 6]]}\n", "");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ((*rows)->Get({1})->ragged->concat().scalar_type(), torch::kFloat32);
}

TEST_F(RaggedJsonLinesTest, ReadsTargetsOfAnyLength) {
  const auto tagged = Open("{\"x\": [1.5, 2], \"y\": [0, 1]}\n{\"x\": [4], \"y\": [2]}\n", "y", TargetSizes::kAny);
  ASSERT_TRUE(tagged.ok()) << tagged.status();
  const auto batch = (*tagged)->Get({1, 0});
  EXPECT_TRUE(torch::equal(batch->ragged_target->concat(), torch::tensor({2, 0, 1})));
  EXPECT_EQ(batch->ragged->concat().scalar_type(), torch::kFloat32);
  EXPECT_THAT(std::string(Open("{\"x\": [1], \"y\": 0}\n", "y", TargetSizes::kAny).status().message()),
              HasSubstr(":1: \"y\" is no list"));
}

TEST_F(RaggedJsonLinesTest, NamesTheLineThatDoesNotFit) {
  const std::pair<const char*, const char*> wrong[] = {
      {"{\"x\": [1], \"y\": 0}\n{\"x\": [[1]], \"y\": 0}\n", ":2: \"x\" has 2 dims; allowed: 1 as before"},
      {"{\"x\": 5, \"y\": 0}\n", ":1: \"x\" is no list"},
      {"{\"x\": [[1], [2, 3]], \"y\": 0}\n", ":1: \"x\" is no number and no even list"},
      {"{\"x\": [1], \"y\": [0]}\n{\"x\": [1], \"y\": [0, 1]}\n", ":2: \"y\" has shape [2]; allowed: [1]"},
      {"{\"x\": [1\n", ":1: found no JSON object"},
      {"\n", "no rows"},
  };
  for (const auto& [text, problem] : wrong) {
    const auto opened = Open(text);
    EXPECT_TRUE(absl::IsDataLoss(opened.status())) << text;
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr(problem));
  }
}

}  // namespace
}  // namespace athanor

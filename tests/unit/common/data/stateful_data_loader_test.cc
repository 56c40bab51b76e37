#include "athanor/data/stateful_data_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <set>
#include <stdexcept>

namespace athanor {
namespace {

// Sample i = the number i. Damaged and throwing samples, a gate and a counter as asked.
class NumberDataset : public Dataset {
 public:
  explicit NumberDataset(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override {
    ++calls;
    if (gate.valid()) gate.wait();
    for (int64_t index : indices) {
      if (index == damaged.load()) return absl::DataLossError("sample " + std::to_string(index) + " is damaged");
      if (index == throwing.load()) throw std::runtime_error("boom");
    }
    Batch batch;
    batch.input = torch::tensor(indices, torch::kInt64);
    batch.size = static_cast<int64_t>(indices.size());
    return batch;
  }
  mutable std::atomic<int64_t> calls = 0;
  std::atomic<int64_t> damaged = -1, throwing = -1;
  std::shared_future<void> gate;

 private:
  int64_t size_;
};

// The samples that count: a stand-in of a padding-only batch does not.
std::vector<int64_t> Numbers(const Batch& batch) {
  return {batch.input.data_ptr<int64_t>(), batch.input.data_ptr<int64_t>() + batch.size};
}

std::unique_ptr<StatefulDataLoader> Make(std::shared_ptr<const Dataset> dataset, LoaderOptions options) {
  auto loader = StatefulDataLoader::Make(std::move(dataset), options);
  EXPECT_TRUE(loader.ok()) << loader.status();
  return std::move(loader).value();
}

// Until the end of the epoch, at most `limit` batches.
std::vector<std::vector<int64_t>> Drain(StatefulDataLoader& loader, int64_t limit = 1000) {
  std::vector<std::vector<int64_t>> batches;
  while (static_cast<int64_t>(batches.size()) < limit) {
    absl::StatusOr<Batch> batch = loader.Next();
    if (absl::IsOutOfRange(batch.status())) break;
    EXPECT_TRUE(batch.ok()) << batch.status();
    if (!batch.ok()) break;
    batches.push_back(Numbers(*batch));
  }
  return batches;
}

class LoaderTest : public testing::TestWithParam<int> {};

TEST_P(LoaderTest, OrderDoesNotDependOnWorkers) {
  const auto dataset = std::make_shared<NumberDataset>(103);
  for (const bool drop_last : {false, true}) {
    const LoaderOptions options{.batch_size = 4, .drop_last = drop_last, .seed = 5, .world_size = 2, .rank = 1};
    LoaderOptions threaded = options;
    threaded.num_workers = GetParam();
    auto inline_loader = Make(dataset, options), loader = Make(dataset, threaded);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      inline_loader->StartEpoch(epoch);
      loader->StartEpoch(epoch);
      const auto batches = Drain(*loader);
      EXPECT_EQ(static_cast<int64_t>(batches.size()), loader->batches_per_epoch());
      EXPECT_EQ(batches, Drain(*inline_loader));
      EXPECT_EQ(loader->remaining(), 0);
      EXPECT_TRUE(absl::IsOutOfRange(loader->Next().status()));
    }
  }
}

TEST_P(LoaderTest, ResumesAtTheNextUnseenBatchAnywhere) {
  const auto dataset = std::make_shared<NumberDataset>(37);
  const LoaderOptions options{.batch_size = 4, .num_workers = GetParam(), .seed = 9, .world_size = 2, .rank = 0};
  auto whole = Make(dataset, options);
  whole->StartEpoch(2);
  const auto expected = Drain(*whole);
  for (size_t stop = 0; stop <= expected.size(); ++stop) {
    auto first = Make(dataset, options);
    first->StartEpoch(2);
    auto batches = Drain(*first, static_cast<int64_t>(stop));
    const nlohmann::json state = nlohmann::json::parse(first->StateDict().dump());
    EXPECT_EQ(first->position(), static_cast<int64_t>(stop));
    LoaderOptions other = options;
    other.num_workers = 1;  // may change
    auto second = Make(dataset, other);
    ASSERT_TRUE(second->LoadStateDict(state).ok());
    EXPECT_EQ(second->epoch(), 2);
    for (auto& batch : Drain(*second)) batches.push_back(batch);
    EXPECT_EQ(batches, expected) << "stopped after " << stop;
  }
}

TEST_P(LoaderTest, OtherWorldSizeSeesTheRestOnce) {
  const auto dataset = std::make_shared<NumberDataset>(41);
  std::multiset<int64_t> seen;
  nlohmann::json state;
  for (int rank = 0; rank < 2; ++rank) {
    auto loader = Make(dataset, {.batch_size = 4,
                                 .num_workers = GetParam(),
                                 .seed = 9,
                                 .world_size = 2,
                                 .rank = rank,
                                 .padding = SamplerPadding::kNone});
    for (const auto& batch : Drain(*loader, 3)) seen.insert(batch.begin(), batch.end());
    state = loader->StateDict();
  }
  EXPECT_EQ(state["samples"], 24);
  for (int rank = 0; rank < 3; ++rank) {
    auto loader = Make(dataset, {.batch_size = 5,
                                 .num_workers = GetParam(),
                                 .seed = 9,
                                 .world_size = 3,
                                 .rank = rank,
                                 .padding = SamplerPadding::kNone});
    ASSERT_TRUE(loader->LoadStateDict(state).ok());
    EXPECT_EQ(loader->remaining(), 2);  // ceil(17 / 3) = 6 samples
    for (const auto& batch : Drain(*loader)) seen.insert(batch.begin(), batch.end());
  }
  EXPECT_EQ(seen.size(), 41u);
  EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), 41u);
}

TEST_P(LoaderTest, PassesErrorsOnAndTriesAgain) {
  auto dataset = std::make_shared<NumberDataset>(10);
  dataset->damaged = 5;
  dataset->throwing = 8;
  auto loader = Make(dataset, {.batch_size = 2, .shuffle = false, .num_workers = GetParam()});
  EXPECT_EQ(Drain(*loader, 2).size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = loader->Next().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(), "batch 2: sample 5 is damaged");
  }
  EXPECT_EQ(loader->position(), 2);
  // Workers may have tried again already: the error may come once more, then the batch.
  dataset->damaged = -1;
  absl::StatusOr<Batch> batch = loader->Next();
  if (!batch.ok()) batch = loader->Next();
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_THAT(Numbers(*batch), testing::ElementsAre(4, 5));
  EXPECT_TRUE(loader->Next().ok());
  EXPECT_EQ(loader->Next().status(), absl::UnknownError("batch 4: the dataset threw: boom"));
}

TEST_P(LoaderTest, PaddingOnlyBatchesWeighNothing) {
  const auto dataset = std::make_shared<NumberDataset>(9);
  int64_t samples = 0;
  for (int rank = 0; rank < 4; ++rank) {
    auto loader = Make(dataset, {.batch_size = 2,
                                 .shuffle = false,
                                 .num_workers = GetParam(),
                                 .world_size = 4,
                                 .rank = rank,
                                 .padding = SamplerPadding::kNone});
    EXPECT_EQ(loader->batches_per_epoch(), 2);
    for (int i = 0; i < 2; ++i) {
      absl::StatusOr<Batch> batch = loader->Next();
      ASSERT_TRUE(batch.ok());
      EXPECT_GE(batch->input.size(0), 1);
      samples += batch->size;
    }
  }
  EXPECT_EQ(samples, 9);
}

INSTANTIATE_TEST_SUITE_P(Workers, LoaderTest, testing::Values(0, 1, 3));

TEST(StatefulDataLoaderTest, PrefetchIsBoundedAndStopsWithWorkInFlight) {
  auto dataset = std::make_shared<NumberDataset>(1000);
  auto loader = Make(dataset, {.batch_size = 1, .num_workers = 2, .prefetch_factor = 3});
  EXPECT_EQ(Drain(*loader, 10).size(), 10u);
  EXPECT_LE(dataset->calls.load(), 10 + 6);
}

TEST(StatefulDataLoaderTest, WaitsNoLongerThanItsTimeout) {
  auto dataset = std::make_shared<NumberDataset>(10);
  std::promise<void> open;
  dataset->gate = open.get_future().share();
  auto loader = Make(dataset, {.batch_size = 2, .num_workers = 1, .timeout = 0.05});
  EXPECT_EQ(loader->Next().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(loader->position(), 0);
  open.set_value();
  absl::StatusOr<Batch> batch = loader->Next();
  while (absl::IsDeadlineExceeded(batch.status())) batch = loader->Next();
  EXPECT_TRUE(batch.ok());
}

TEST(StatefulDataLoaderTest, OutOfOrderGivesEveryBatchOnceOverAResume) {
  const auto dataset = std::make_shared<NumberDataset>(60);
  const LoaderOptions options{.batch_size = 3, .num_workers = 3, .in_order = false};
  auto first = Make(dataset, options);
  std::set<int64_t> seen;
  for (const auto& batch : Drain(*first, 7)) seen.insert(batch.begin(), batch.end());
  auto second = Make(dataset, options);
  ASSERT_TRUE(second->LoadStateDict(first->StateDict()).ok());
  EXPECT_EQ(second->position(), 7);
  const auto rest = Drain(*second);
  EXPECT_EQ(rest.size(), 13u);
  for (const auto& batch : rest) seen.insert(batch.begin(), batch.end());
  EXPECT_EQ(seen.size(), 60u);
}

TEST(StatefulDataLoaderTest, RefusesWhatCannotWork) {
  const auto dataset = std::make_shared<NumberDataset>(10);
  const auto message = [&](LoaderOptions options) {
    return std::string(StatefulDataLoader::Make(dataset, options).status().message());
  };
  EXPECT_EQ(message({.batch_size = 0}), "data loader: batch_size: found 0; allowed: integer > 0");
  EXPECT_EQ(message({.batch_size = 6, .drop_last = true, .world_size = 2}),
            "data loader: drop_last leaves nothing: 5 samples per rank, batch_size 6");
  EXPECT_EQ(message({.world_size = 2, .rank = 2}), "data loader: rank 2 of 2 ranks");
  EXPECT_EQ(StatefulDataLoader::Make(std::make_shared<NumberDataset>(0), {}).status().message(),
            "data loader: the dataset has no samples");
  auto loader = Make(dataset, {.seed = 1});
  nlohmann::json state = loader->StateDict();
  state["seed"] = 2;
  EXPECT_EQ(loader->LoadStateDict(state).message(),
            "data loader state: found seed 2, shuffle true; allowed: seed 1, shuffle true");
  state = loader->StateDict();
  state["dataset_size"] = 11;
  EXPECT_EQ(loader->LoadStateDict(state).message(), "data loader state: found a dataset of 11 samples; allowed: 10");
  EXPECT_THAT(std::string(loader->LoadStateDict({{"epoch", "x"}}).message()),
              testing::StartsWith("data loader state is damaged"));
}

}  // namespace
}  // namespace athanor

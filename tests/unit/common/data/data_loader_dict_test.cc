#include "athanor/data/data_loader_dict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "athanor/data/tensor_dataset.h"
#include "athanor/data/train_splits.h"

namespace athanor {
namespace {

std::unique_ptr<StatefulDataLoader> Make(int64_t samples, LoaderOptions options) {
  auto loader = StatefulDataLoader::Make(*TensorDataset::Make(torch::arange(samples), {}), options);
  EXPECT_TRUE(loader.ok()) << loader.status();
  return *std::move(loader);
}

std::vector<int64_t> Numbers(const Batch& batch) {
  return {batch.input.data_ptr<int64_t>(), batch.input.data_ptr<int64_t>() + batch.size};
}

TEST(DataLoaderDictTest, StateOfAllSplitsAndUnknownOnesPassedOver) {
  DataLoaderDict loaders, restored;
  for (DataLoaderDict* dict : {&loaders, &restored}) {
    dict->Set("train", Make(10, {.batch_size = 2, .seed = 1}));
    dict->Set("val", Make(6, {.batch_size = 2, .shuffle = false, .seed = 1}));
  }
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(loaders.Find("train")->Next().ok());
  nlohmann::json state = nlohmann::json::parse(loaders.StateDict().dump());
  state["gone"] = state["val"];
  ASSERT_TRUE(restored.LoadStateDict(state).ok());
  EXPECT_EQ(restored.Find("train")->position(), 3);
  EXPECT_EQ(Numbers(*restored.Find("train")->Next()), Numbers(*loaders.Find("train")->Next()));
  EXPECT_EQ(restored.Find("val")->position(), 0);
  state["val"]["seed"] = 2;
  EXPECT_THAT(std::string(restored.LoadStateDict(state).message()), testing::HasSubstr("split val"));
  EXPECT_THAT(std::string(loaders.Get("test").status().message()), testing::HasSubstr("train, val"));
}

std::unique_ptr<TrainSplits> MakeSplits(TrainSplitsOptions options) {
  std::map<std::string, std::unique_ptr<StatefulDataLoader>> loaders;
  loaders["a"] = Make(5, {.batch_size = 1, .shuffle = false});
  loaders["b"] = Make(3, {.batch_size = 1, .shuffle = false});
  return *TrainSplits::Make(std::move(loaders), options);
}

// "a0 a1 b0 | …": split and sample of every update; "|" where a round is over.
std::string Trace(TrainSplits* splits, int64_t begin, int64_t end) {
  std::string trace;
  for (int64_t step = begin; step < end; ++step) {
    const std::string split = splits->split();
    trace += split + std::to_string(Numbers(*splits->Next())[0]) + " ";
    if (!splits->Advance(step + 1)) continue;
    trace += "| ";
    splits->NextRound(step + 1);
  }
  return trace;
}

TEST(TrainSplitsTest, RoundsOfPassesAndOfShares) {
  EXPECT_EQ(Trace(MakeSplits({}).get(), 0, 10), "a0 a1 a2 a3 a4 b0 b1 b2 | a0 a1 ");
  // 7 updates: 4 for a, the 3 that are left for b; then a goes on where it was.
  EXPECT_EQ(Trace(MakeSplits({.total_steps = 7}).get(), 0, 7), "a0 a1 a2 a3 b0 b1 b2 | ");
  EXPECT_EQ(Trace(MakeSplits({.total_steps = 13}).get(), 0, 13), "a0 a1 a2 a3 a4 b0 b1 b2 | a0 a1 a2 b0 b1 | ");
  EXPECT_EQ(MakeSplits({.accum_steps = 2})->updates_per_pass(), 5);
}

TEST(TrainSplitsTest, GoesOnAnywhere) {
  for (const int64_t total : {0, 13}) {
    const std::string whole = Trace(MakeSplits({.total_steps = total}).get(), 0, 13);
    for (int64_t stop = 0; stop < 13; ++stop) {
      auto first = MakeSplits({.total_steps = total}), second = MakeSplits({.total_steps = total});
      const std::string head = Trace(first.get(), 0, stop);
      ASSERT_TRUE(second->LoadStateDict(nlohmann::json::parse(first->StateDict().dump())).ok());
      EXPECT_EQ(head + Trace(second.get(), stop, 13), whole) << "stopped after " << stop;
    }
  }
}

class ProxyTest : public testing::TestWithParam<int> {};

TEST_P(ProxyTest, StaysInStepWithoutReading) {
  const LoaderOptions options{.batch_size = 3, .num_workers = GetParam(), .seed = 4};
  auto real = Make(20, options), behind = Make(20, options);
  StepProxyLoader proxy(behind.get());
  real->StartEpoch(2);
  proxy.StartEpoch(2);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(real->Next().ok());
    auto batch = proxy.Next();
    ASSERT_TRUE(batch.ok());
    EXPECT_EQ(batch->size, 0);
    EXPECT_EQ(proxy.StateDict(), real->StateDict());
  }
  // From here on the loader behind it gives what the real one gives.
  EXPECT_EQ(Numbers(*behind->Next()), Numbers(*real->Next()));
  while (proxy.remaining() > 0) ASSERT_TRUE(proxy.Next().ok());
  EXPECT_TRUE(absl::IsOutOfRange(proxy.Next().status()));
}

TEST_P(ProxyTest, WorkersThatEndWithTheEpochGiveTheSame) {
  LoaderOptions options{.batch_size = 3, .num_workers = GetParam(), .seed = 4};
  auto lasting = Make(20, options);
  options.persistent_workers = false;
  auto brief = Make(20, options);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    lasting->StartEpoch(epoch);
    brief->StartEpoch(epoch);
    for (int i = 0; i < 7; ++i) EXPECT_EQ(Numbers(*brief->Next()), Numbers(*lasting->Next()));
    EXPECT_TRUE(absl::IsOutOfRange(brief->Next().status()));
    EXPECT_TRUE(absl::IsOutOfRange(brief->Next().status()));
  }
}

INSTANTIATE_TEST_SUITE_P(Workers, ProxyTest, testing::Values(0, 2));

// Ranks come and go in the middle of a pass, several times: every sample once, none dropped.
TEST(ElasticTest, EverySampleOnceOverChangingNumbersOfRanks) {
  constexpr int64_t kSamples = 101;
  std::multiset<int64_t> seen;
  nlohmann::json state;
  for (const auto& [world, batches] : std::vector<std::pair<int, int64_t>>{{4, 3}, {1, 5}, {3, 4}, {2, 1000}}) {
    nlohmann::json next;
    for (int rank = 0; rank < world; ++rank) {
      auto loader = Make(kSamples, {.batch_size = 3,
                                    .num_workers = rank % 2,
                                    .seed = 11,
                                    .world_size = world,
                                    .rank = rank,
                                    .padding = SamplerPadding::kNone});
      if (!state.is_null()) {
        ASSERT_TRUE(loader->LoadStateDict(state).ok());
      }
      for (int64_t i = 0; i < batches && loader->remaining() > 0; ++i) {
        auto batch = loader->Next();
        ASSERT_TRUE(batch.ok()) << batch.status();
        for (const int64_t number : Numbers(*batch)) seen.insert(number);
      }
      if (rank == 0) next = loader->StateDict();
      EXPECT_EQ(loader->StateDict(), next) << "every rank's state is that of the job";
    }
    state = nlohmann::json::parse(next.dump());
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(kSamples));
  EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), static_cast<size_t>(kSamples));
}

}  // namespace
}  // namespace athanor

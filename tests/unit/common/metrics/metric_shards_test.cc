// However samples are divided over 1, 2 or 4 ranks, unevenly and with an empty rank, every kind of metrics has the
// values of one process that saw all of them; and every rank reads the same bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/multitask_metrics.h"
#include "tests/unit/common/metrics/counting_sync.h"

namespace athanor {
namespace {

constexpr int64_t kSamples = 103;

// Sums of counts and ranks are exact; float64 moments and sums of float32 scores differ in the last bits with the
// division of the samples, and the values are float32.
constexpr double kTolerance = 2e-6;

struct Division {
  std::string name;
  std::vector<int64_t> shares;  // by rank; they add up to kSamples
};

std::vector<Division> Divisions() {
  return {{"1 rank", {kSamples}},
          {"2 ranks", {51, 52}},
          {"2 ranks, the first empty", {0, kSamples}},
          {"4 ranks, uneven", {1, 60, 40, 2}},
          {"4 ranks, two empty", {100, 0, 3, 0}}};
}

struct Kind {
  std::string name;
  MetricsOptions options;
  torch::Dtype dtype = torch::kFloat32;
  bool of_batches = false;  // a mean of batches: batches are of one sample, so that their division does not matter
};

LabeledBatch SamplesOf(const Kind& kind) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  const std::string& type = kind.options.type;
  torch::Tensor input, target;
  if (type == "regression") {
    const int64_t outputs = kind.options.num_outputs.value_or(1);
    target = torch::randn(outputs == 1 ? std::vector<int64_t>{kSamples} : std::vector<int64_t>{kSamples, outputs},
                          generator, torch::kFloat32) +
             3;
    input = target + torch::randn(target.sizes(), generator, torch::kFloat32);
    if (!kind.of_batches) target[5] = std::nan("");
    return {input.to(kind.dtype), target.to(kind.dtype)};
  }
  if (type == "multiclass") {
    input = torch::randn({kSamples, 5}, generator, torch::kFloat32).softmax(1);
    target = torch::randint(0, 5, {kSamples}, generator, torch::kInt64);
  } else {
    const std::vector<int64_t> shape =
        type == "binary" ? std::vector<int64_t>{kSamples} : std::vector<int64_t>{kSamples, 3};
    target = torch::randint(0, 2, shape, generator, torch::kInt64);
    // Few values: ties across shards.
    input = (torch::sigmoid(torch::randn(shape, generator, torch::kFloat32) + target) * 40).round() / 40;
  }
  if (!kind.of_batches) target.view({-1})[5] = -100;
  return {input.to(kind.dtype), target};
}

void Feed(const LabeledBatch& samples, int64_t begin, int64_t end, int64_t size,
          const std::function<void(LabeledBatch)>& to) {
  for (int64_t at = begin; at < end; at += size) {
    const int64_t count = std::min(size, end - at);
    to({samples.input.narrow(0, at, count), samples.target.narrow(0, at, count)});
  }
}

void ExpectNear(const MetricValues& expected, const MetricValues& found) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const torch::Tensor &a = expected[i].second, &b = found[i].second;
    EXPECT_EQ(expected[i].first, found[i].first);
    ASSERT_EQ(a.scalar_type(), b.scalar_type()) << expected[i].first;
    ASSERT_EQ(a.sizes(), b.sizes()) << expected[i].first;
    EXPECT_TRUE(torch::allclose(a, b, kTolerance, kTolerance, /*equal_nan=*/true))
        << expected[i].first << ": " << a << " and " << b;
  }
}

std::vector<Kind> Kinds() {
  using namespace metrics;  // NOLINT(google-build-using-namespace): the descriptors of all tasks
  const auto options = [](const std::string& type, std::vector<MetricFunc> metrics = {}, int64_t outputs = 1) {
    MetricsOptions made{.type = type, .num_outputs = outputs, .metrics = std::move(metrics)};
    if (type == "multiclass") made.num_classes = 5;
    if (type == "multilabel") made.num_labels = 3;
    return made;
  };
  std::vector<Kind> kinds = {
      {"binary", options("binary")},
      {"multiclass", options("multiclass")},
      {"multiclass, per class", options("multiclass", {MulticlassAuroc(5, {.average = Average::kNone}),
                                                       MulticlassF1(5, {.average = Average::kNone}),
                                                       MulticlassConfusionMatrix(5), MulticlassAccuracy(5, {.k = 2})})},
      {"multilabel", options("multilabel")},
      {"regression", options("regression")},
      {"regression, two outputs", options("regression", {Mse(2), Spearman(2), R2Score(2), Pearson(2)}, 2)},
      {"binned and calibration",
       options("multiclass", {MulticlassAuroc(5, {.thresholds = 21}), MulticlassAuprc(5, {.thresholds = 21}),
                              MulticlassCalibrationError(5), MulticlassCohenKappa(5)})},
      {"binned labels", options("multilabel", {MultilabelAuroc(3, {.thresholds = 50})})},
      {"float64 scores", options("binary"), torch::kFloat64},
      {"float64 regression", options("regression"), torch::kFloat64},
      {"half scores", options("binary"), torch::kHalf},
      {"stream, binary", options("binary", {BinaryAccuracy(), BinaryF1()}), torch::kFloat32, true},
      {"stream, labels", options("multilabel", {MultilabelAccuracy(3, {.average = Average::kNone})}), torch::kFloat32,
       true},
      {"stream, regression", options("regression", {Mse(2), Mae(2)}, 2), torch::kFloat64, true},
  };
  for (Kind& kind : kinds) kind.options.mode = kind.of_batches ? MetricMode::kStream : MetricMode::kGlobal;
  return kinds;
}

TEST(MetricShards, DoNotMatter) {
  for (const Kind& kind : Kinds()) {
    const LabeledBatch samples = SamplesOf(kind);
    auto whole = *BuildMetrics(kind.options);
    const int64_t size = kind.of_batches ? 1 : 11;
    Feed(samples, 0, kSamples, kind.of_batches ? 1 : kSamples,
         [&](LabeledBatch b) { whole->Update(b.input, b.target); });
    const absl::StatusOr<MetricValues> expected = whole->Average();
    ASSERT_TRUE(expected.ok()) << kind.name << expected.status();
    for (const Division& division : Divisions()) {
      SCOPED_TRACE(kind.name + ", " + division.name);
      std::vector<MetricValues> ranks(division.shares.size());
      RunRanks(static_cast<int>(division.shares.size()), true, [&](ProcessGroup* group) {
        const auto rank = static_cast<size_t>(group->rank());
        MetricsOptions options = kind.options;
        options.sync = MakeMeterSync(*group);
        auto metrics = *BuildMetrics(options);
        int64_t begin = 0;
        for (size_t r = 0; r < rank; ++r) begin += division.shares[r];
        Feed(samples, begin, begin + division.shares[rank], size,
             [&](LabeledBatch b) { metrics->Update(b.input, b.target); });
        absl::StatusOr<MetricValues> found = metrics->Average();
        ASSERT_TRUE(found.ok()) << found.status();
        ExpectNear(*expected, *found);
        EXPECT_EQ(*metrics->Samples(false, true), *whole->Samples(false, false));
        ranks[rank] = *std::move(found);
      });
      ExpectSameOnAllRanks(ranks);
    }
  }
}

TEST(MetricShards, MetersOfNumbersAndTensors) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const torch::Tensor numbers = torch::randn({kSamples}, generator, torch::kFloat64);
  const torch::Tensor tensors = torch::randn({kSamples, 2, 3}, generator, torch::kFloat64);
  const auto feed = [&](AverageMeters& meters, int64_t begin, int64_t count) {
    for (const char* name : {"loss", "table", "never"}) meters[name];
    for (int64_t i = begin; i < begin + count; ++i) {
      meters["loss"].Update(numbers[i], 1 + i % 3);
      meters["table"].Update(tensors[i], 1 + i % 2);
    }
  };
  AverageMeters whole;
  feed(whole, 0, kSamples);
  for (const Division& division : Divisions()) {
    SCOPED_TRACE(division.name);
    std::vector<MetricValues> ranks(division.shares.size());
    RunRanks(static_cast<int>(division.shares.size()), true, [&](ProcessGroup* group) {
      const auto rank = static_cast<size_t>(group->rank());
      AverageMeters meters(MakeMeterSync(*group));
      int64_t begin = 0;
      for (size_t r = 0; r < rank; ++r) begin += division.shares[r];
      feed(meters, begin, division.shares[rank]);
      absl::StatusOr<MetricValues> found = meters.Average();
      ASSERT_TRUE(found.ok()) << found.status();
      ExpectNear(*whole.Average(), *found);
      ASSERT_TRUE(meters.Batch().ok());
      ranks[rank] = *std::move(found);
    });
    ExpectSameOnAllRanks(ranks);
  }
  // A tensor meter by itself, empty on one rank.
  RunRanks(2, true, [](ProcessGroup* group) {
    AverageMeter meter(MakeMeterSync(*group));
    if (group->rank() == 1) meter.Update(torch::tensor({1.0, 3.0}), 2);
    EXPECT_TRUE(torch::equal(*meter.Average(), torch::tensor({1.0, 3.0}, torch::kFloat64)));
  });
}

// Micro weights are the samples of all ranks.
TEST(MetricShards, TasksAndTheirAggregates) {
  for (const Aggregate aggregate : {Aggregate::kNone, Aggregate::kMacro, Aggregate::kMicro, Aggregate::kWeighted}) {
    const std::vector<Kind> kinds = {Kinds()[0], Kinds()[1], Kinds()[11]};
    const auto make = [&](std::shared_ptr<MeterSync> sync) {
      MultiTaskOptions how{.aggregate = aggregate};
      if (aggregate == Aggregate::kWeighted) how.weights = {{"0", 1}, {"1", 3}, {"2", 0.5}};
      MultiTaskMetrics metrics = *MultiTaskMetrics::Create(how);
      for (size_t i = 0; i < kinds.size(); ++i) {
        MetricsOptions options = kinds[i].options;
        options.sync = sync;
        EXPECT_TRUE(metrics.Add(std::to_string(i), *BuildMetrics(options)).ok());
      }
      return metrics;
    };
    // Task 0 has fewer samples than the others.
    const auto feed = [&](MultiTaskMetrics& metrics, int64_t begin, int64_t end) {
      for (size_t i = 0; i < kinds.size(); ++i) {
        Feed(SamplesOf(kinds[i]), begin, i == 0 ? std::min<int64_t>(end, 40) : end, kinds[i].of_batches ? 1 : 11,
             [&](LabeledBatch b) { ASSERT_TRUE(metrics.Update(std::to_string(i), b.input, b.target).ok()); });
      }
    };
    MultiTaskMetrics whole = make(nullptr);
    feed(whole, 0, kSamples);
    const MetricValues expected = *whole.Average();
    for (const Division& division : Divisions()) {
      SCOPED_TRACE(division.name);
      std::vector<MetricValues> ranks(division.shares.size());
      RunRanks(static_cast<int>(division.shares.size()), true, [&](ProcessGroup* group) {
        const auto rank = static_cast<size_t>(group->rank());
        MultiTaskMetrics metrics = make(MakeMeterSync(*group));
        int64_t begin = 0;
        for (size_t r = 0; r < rank; ++r) begin += division.shares[r];
        feed(metrics, begin, begin + division.shares[rank]);
        absl::StatusOr<MetricValues> found = metrics.Average();
        ASSERT_TRUE(found.ok()) << found.status();
        ExpectNear(expected, *found);
        ASSERT_TRUE(metrics.Batch().ok());
        ranks[rank] = *std::move(found);
      });
      ExpectSameOnAllRanks(ranks);
    }
  }
}

// Of scores that only float64 tells apart.
TEST(MetricShards, ARankWithoutSamplesDoesNotRoundTheOthers) {
  std::vector<MetricValues> ranks(2);
  RunRanks(2, true, [&](ProcessGroup* group) {
    const auto sync = MakeMeterSync(*group);
    auto scores = *BuildMetrics({.type = "binary", .sync = sync});
    auto errors = *BuildMetrics({.type = "regression", .sync = sync});
    if (group->rank() == 0) {
      scores->Update(torch::tensor({0.5, 0.5 + 1e-12}, torch::kFloat64), torch::tensor({0, 1}));
      errors->Update(torch::tensor({1.0, 2.0, 4.0}, torch::kFloat64),
                     torch::tensor({1.0, 2.0, 4.0 + 1e-12}, torch::kFloat64));
    }
    MetricValues values = *scores->Average();
    EXPECT_EQ(FindValue(values, "auroc")->item<double>(), 1) << "a tie in float32";
    const auto append = [&](const absl::StatusOr<MetricValues>& more) {
      values.insert(values.end(), more->begin(), more->end());
    };
    append(errors->Average());
    EXPECT_EQ(FindValue(values, "mse")->scalar_type(), torch::kFloat64);
    append(scores->Batch());
    append(errors->Batch());
    ranks[static_cast<size_t>(group->rank())] = std::move(values);
  });
  ExpectSameOnAllRanks(ranks);
}

TEST(MetricShards, WhatAllRanksSawIsThere) {
  RunRanks(2, true, [](ProcessGroup* group) {
    auto metrics =
        GlobalMetrics::Create({metrics::BinaryAuroc(), metrics::BinaryAccuracy()}, {.sync = MakeMeterSync(*group)});
    ASSERT_TRUE(metrics.ok());
    const float base = group->rank() == 0 ? 0.25F : 0.5F;
    (*metrics)->Update(torch::tensor({base, base + 0.25F}), torch::tensor({0, 1}));
    ASSERT_TRUE((*metrics)->Average().ok());
    const absl::StatusOr<MetricState> state = (*metrics)->SyncedState();
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_TRUE(torch::equal(state->samples.input, torch::tensor({0.25F, 0.5F, 0.5F, 0.75F})));
    EXPECT_TRUE(torch::equal(state->samples.target, torch::tensor({0, 1, 0, 1})));
    EXPECT_TRUE(torch::equal(state->confusion.at(1), torch::tensor({{2, 0}, {1, 1}})));
    EXPECT_EQ((*metrics)->LocalState().samples.input.size(0), 2) << "this rank still has its own only";
  });
}

}  // namespace
}  // namespace athanor

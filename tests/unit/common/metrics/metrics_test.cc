// What must hold for metrics whatever the numbers are: order and division of the samples do not matter, ranks agree,
// wrong input is named. The numbers themselves: tests/oracle.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/functional.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/metrics/multitask_metrics.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Samples {
  torch::Tensor scores, labels;
};

Samples Binary(int64_t count, int64_t seed = 1) {
  torch::manual_seed(seed);
  const torch::Tensor labels = torch::randint(0, 2, {count}, torch::kInt64);
  return {torch::sigmoid(torch::randn({count}) + labels), labels};
}

std::unique_ptr<GlobalMetrics> AllBinary(std::shared_ptr<MeterSync> sync = nullptr) {
  auto made = GlobalMetrics::Create(
      {metrics::BinaryAuroc(), metrics::BinaryAuprc(), metrics::BinaryAccuracy(), metrics::BinaryF1(),
       metrics::BinaryMcc(), metrics::BinaryCohenKappa(), metrics::BinaryCalibrationError()},
      {.sync = std::move(sync)});
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

void ExpectSame(const MetricValues& expected, const MetricValues& found, double tolerance = 1e-6) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected[i].first, found[i].first);
    EXPECT_TRUE(torch::allclose(expected[i].second, found[i].second, tolerance, tolerance))
        << expected[i].first << ": " << expected[i].second << " and " << found[i].second;
  }
}

TEST(GlobalMetrics, OrderAndBatchesOfTheSamplesDoNotMatter) {
  const Samples all = Binary(211);
  auto whole = AllBinary();
  whole->Update(all.scores, all.labels);
  const MetricValues expected = *whole->Average();
  for (int64_t batch : {1, 7, 64}) {
    const torch::Tensor order = torch::randperm(211);
    auto parts = AllBinary();
    for (int64_t at = 0; at < 211; at += batch) {
      const torch::Tensor rows = order.narrow(0, at, std::min<int64_t>(batch, 211 - at));
      parts->Update(all.scores.index({rows}), all.labels.index({rows}));
    }
    ExpectSame(expected, *parts->Average());
    EXPECT_EQ(*parts->Samples(false, false), 211);
  }
}

TEST(GlobalMetrics, RanksWithUnevenSharesSeeTheWhole) {
  const Samples all = Binary(97);
  auto whole = AllBinary();
  whole->Update(all.scores, all.labels);
  const MetricValues expected = *whole->Average();
  for (int world : {2, 4}) {
    RunRanks(world, /*shared_memory=*/true, [&](ProcessGroup* group) {
      auto metrics = AllBinary(MakeMeterSync(*group));
      // The last rank has nothing at all; the others take turns of other lengths.
      const int64_t ranks = world - 1, mine = group->rank();
      if (mine < ranks) {
        const int64_t begin = 97 * mine / ranks, end = 97 * (mine + 1) / ranks;
        for (int64_t at = begin; at < end; at += 11) {
          const int64_t size = std::min<int64_t>(11, end - at);
          metrics->Update(all.scores.narrow(0, at, size), all.labels.narrow(0, at, size));
        }
      }
      absl::StatusOr<MetricValues> found = metrics->Average();
      ASSERT_TRUE(found.ok()) << found.status();
      ExpectSame(expected, *found);
      EXPECT_EQ(*metrics->Samples(false, true), 97);
      ASSERT_TRUE(metrics->Batch().ok());
    });
  }
}

TEST(GlobalMetrics, MoreBatchesAfterAReadOut) {
  const Samples all = Binary(60);
  auto whole = AllBinary();
  whole->Update(all.scores, all.labels);
  auto parts = AllBinary();
  for (int64_t at = 0; at < 60; at += 20) {
    parts->Update(all.scores.narrow(0, at, 20), all.labels.narrow(0, at, 20));
    ASSERT_TRUE(parts->Average().ok());
  }
  ExpectSame(*whole->Average(), *parts->Average());
}

TEST(GlobalMetrics, BinnedCurvesAreBoundedAndNear) {
  const Samples all = Binary(5000);
  auto binned = GlobalMetrics::Create({metrics::BinaryAuroc({.thresholds = 1001})});
  ASSERT_TRUE(binned.ok());
  EXPECT_TRUE((*binned)->needs().bounded());
  EXPECT_FALSE(AllBinary()->needs().bounded());
  (*binned)->Update(all.scores, all.labels);
  const double exact = metrics::Auroc(all.scores, all.labels).item<double>();
  EXPECT_NEAR((*(*binned)->Average())[0].second.item<double>(), exact, 1e-3);
}

TEST(GlobalMetrics, TheCallerMayReuseItsTensors) {
  auto metrics = AllBinary();
  torch::Tensor scores = torch::tensor({0.1F, 0.9F}), labels = torch::tensor({0, 1});
  metrics->Update(scores, labels);
  scores.fill_(0.5);
  labels.fill_(0);
  EXPECT_EQ((*metrics->Average())[0].second.item<double>(), 1) << "AUROC of the first batch";
}

TEST(GlobalMetrics, WrongLabelsAndScoresAreNamedAtTheNextReadOut) {
  auto classes = GlobalMetrics::Create({metrics::MulticlassAccuracy(3)});
  ASSERT_TRUE(classes.ok());
  (*classes)->Update(torch::rand({4, 3}), torch::tensor({0, 1, 2, 7}));
  EXPECT_THAT(std::string((*classes)->Average().status().message()), HasSubstr("1 labels that do not exist"));
  auto binary = AllBinary();
  binary->Update(torch::tensor({0.5F, 3.0F}), torch::tensor({0, 1}));
  EXPECT_EQ(binary->Average().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(binary->Average().status().message()), HasSubstr("declare Scores::kLogits"));
  binary->Reset();
  binary->Update(torch::tensor({0.5F, 0.75F}), torch::tensor({0, 1}));
  EXPECT_TRUE(binary->Average().ok());
  EXPECT_THROW(binary->Update(torch::rand({3}), torch::tensor({0, 1})), c10::Error);
}

TEST(GlobalMetrics, RefusesWhatContradictsItself) {
  const auto message = [](std::vector<MetricFunc> metrics) {
    return std::string(GlobalMetrics::Create(std::move(metrics)).status().message());
  };
  EXPECT_THAT(message({}), HasSubstr("at least one"));
  EXPECT_THAT(message({metrics::MulticlassAccuracy(3), metrics::MulticlassF1(4)}), HasSubstr("num_classes: 3 and 4"));
  EXPECT_THAT(message({metrics::BinaryAccuracy(), metrics::Mse()}), HasSubstr("task"));
}

TEST(StreamMetrics, ABatchWithoutAValueDoesNotSpoilTheEpoch) {
  auto metrics = StreamMetrics::Create({metrics::Pearson(), metrics::Mse()});
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  const torch::Tensor constant = torch::ones({4});
  (*metrics)->Update(torch::tensor({1.F, 2.F, 3.F}), torch::tensor({1.F, 2.F, 3.F}));
  (*metrics)->Update(constant, constant);
  const MetricValues last = *(*metrics)->Value(), mean = *(*metrics)->Average();
  EXPECT_TRUE(std::isnan(last[0].second.item<double>()));
  EXPECT_NEAR(mean[0].second.item<double>(), 1, 1e-6);
  EXPECT_EQ(mean[1].second.item<double>(), 0);
}

TEST(StreamMetrics, TakesFunctionsAndKeepsTheFirstOfAName) {
  const auto bias = [](const torch::Tensor& p, const torch::Tensor& t) { return (p - t).mean(); };
  auto metrics = StreamMetrics::Create({{"bias", bias}, {"bias", nullptr}});
  EXPECT_THAT(std::string(metrics.status().message()), HasSubstr("has no function"));
  metrics = StreamMetrics::Create({{"bias", bias}});
  ASSERT_TRUE(metrics.ok());
  (*metrics)->Update(torch::tensor({1.0}), torch::tensor({0.0}));
  (*metrics)->Update(torch::tensor({0.0, 0.0, 0.0}), torch::tensor({1.0, 1.0, 1.0}));
  EXPECT_EQ(*(*metrics)->Text(), "bias: -1.0000 (-0.5000)");
  EXPECT_EQ(*(*metrics)->Samples(false, false), 4);
}

TEST(StreamMetrics, RaggedBatchesCountTheirRealEntries) {
  auto metrics = StreamMetrics::Create({metrics::BinaryAccuracy()});
  ASSERT_TRUE(metrics.ok());
  const NestedTensor scores({torch::tensor({0.9F, 0.2F}), torch::tensor({0.8F})});
  const NestedTensor labels({torch::tensor({1, 1}), torch::tensor({1})});
  (*metrics)->Update(NestedValue(scores), NestedValue(labels));
  EXPECT_EQ(*(*metrics)->Text(), "acc: 0.6667 (0.6667)");
}

TEST(AverageMeter, ShapesMustNotChangeUntilReset) {
  AverageMeter meter;
  meter.Update(torch::ones({2}));
  EXPECT_THROW(meter.Update(torch::ones({3})), c10::ValueError);
  EXPECT_THROW(meter.Update(1.0), c10::ValueError);
  meter.Reset();
  meter.Update(1.0);
  EXPECT_EQ(meter.Text(), "1.0000 (1.0000)");
}

TEST(AverageMeters, RanksMustHaveTheSameNames) {
  RunRanks(2, true, [](ProcessGroup* group) {
    AverageMeters meters(MakeMeterSync(*group));
    meters.Update({{group->rank() == 0 ? "loss" : "lost", 1.0}});
    EXPECT_EQ(meters.Average().status().code(), absl::StatusCode::kInvalidArgument);
  });
}

TEST(MultiTask, WeightsMustFitTheTasks) {
  auto metrics = MultiTaskMetrics::Create({Aggregate::kWeighted, {{"a", 1}, {"b", 3}}});
  ASSERT_TRUE(metrics.ok());
  const auto one = [] { return *BuildMetrics({.type = "binary", .mode = MetricMode::kStream}); };
  ASSERT_TRUE(metrics->Add("a", one()).ok());
  EXPECT_THAT(std::string(metrics->ValueByTask().status().message()), HasSubstr("unknown task 'b'"));
  ASSERT_TRUE(metrics->Add("b", one()).ok());
  EXPECT_FALSE(metrics->Add("b", one()).ok());
  EXPECT_FALSE(metrics->Add("aggregate", one()).ok());
  const Samples batch = Binary(16);
  ASSERT_TRUE(metrics->Update("a", batch.scores, batch.labels).ok());
  EXPECT_THAT(std::string(metrics->Update("c", batch.scores, batch.labels).message()), HasSubstr("there are: a, b"));
  absl::StatusOr<TaskValues> values = metrics->AverageByTask();
  ASSERT_TRUE(values.ok()) << values.status();
  ASSERT_EQ(values->size(), 2u) << "b was never updated";
  ExpectSame((*values)[0].second, (*values)[1].second);
}

// The texts are those of PyTorch 2.13.
TEST(ValueText, OfTensorsIsAsPyTorchPrintsThem) {
  const double inf = HUGE_VAL, nan = std::nan("");
  const auto text = [](const torch::Tensor& value) { return ValueText(value); };
  EXPECT_EQ(text(torch::tensor({{1., 2.5}, {nan, -4.}}, torch::kFloat64)),
            "tensor([[ 1.0000,  2.5000],\n        [    nan, -4.0000]], dtype=torch.float64)");
  EXPECT_EQ(text(torch::tensor({1., inf}, torch::kFloat32)), "tensor([1., inf])");
  EXPECT_EQ(text(torch::tensor({100., -inf, 0.}, torch::kFloat32)), "tensor([100., -inf,   0.])");
  EXPECT_EQ(text(torch::tensor({1., 2000.}, torch::kFloat64)), "tensor([1.0000e+00, 2.0000e+03], dtype=torch.float64)");
  EXPECT_EQ(text(torch::zeros({2, 0})), "tensor([], size=(2, 0))");
  EXPECT_EQ(text(torch::arange(8.F).reshape({2, 2, 2})),
            "tensor([[[0., 1.],\n         [2., 3.]],\n\n        [[4., 5.],\n         [6., 7.]]])");
  EXPECT_EQ(text(torch::arange(2000.F)),
            "tensor([0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 1.9970e+03, 1.9980e+03,\n        1.9990e+03])");
  EXPECT_EQ(text(torch::arange(9., torch::kFloat64) / 8),
            "tensor([0.0000, 0.1250, 0.2500, 0.3750, 0.5000, 0.6250, 0.7500, 0.8750, 1.0000],\n       "
            "dtype=torch.float64)");
}

TEST(MetricMeter, ItsTextHasNoName) {
  MultiTaskMetrics tasks = *MultiTaskMetrics::Create({});
  ASSERT_TRUE(tasks.Add("digits", *MetricMeter(metrics::BinaryAccuracy())).ok());
  EXPECT_EQ(*tasks.Text(), "digits: nan (nan)");
  ASSERT_TRUE(tasks.Update("digits", torch::tensor({0.9F, 0.2F}), torch::tensor({1, 1})).ok());
  EXPECT_EQ(*tasks.Text(), "digits: 0.5000 (0.5000)");
  EXPECT_EQ((*tasks.Average())[0].first, "digits/acc") << "its value has";
}

TEST(Factory, NamesWhatIsMissing) {
  const auto message = [](MetricsOptions options) { return std::string(BuildMetrics(options).status().message()); };
  EXPECT_THAT(message({.type = "ternary"}), HasSubstr("ternary"));
  EXPECT_THAT(message({.type = "multiclass"}), HasSubstr("num_classes"));
  EXPECT_THAT(message({.type = "multilabel", .num_labels = 0}), HasSubstr("num_labels: found 0"));
  EXPECT_THAT(message({.type = "multiclass", .num_classes = 3, .num_labels = 4}), HasSubstr("must agree"));
  EXPECT_THAT(message({.type = "multilabel", .num_classes = 3, .num_labels = 4}), HasSubstr("must agree"));
  EXPECT_TRUE(BuildMetrics({.type = "Regression"}).ok());
}

}  // namespace
}  // namespace athanor

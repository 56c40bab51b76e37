// Scores at the edges of their number types, and values that say nothing about some classes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/functional.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/metrics/multitask_metrics.h"

namespace athanor {
namespace {

using metrics::FunctionOptions;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

FunctionOptions With(Scores scores, int64_t classes = 0, int64_t labels = 0) {
  FunctionOptions options;
  options.scores = scores;
  if (classes > 0) options.num_classes = classes;
  if (labels > 0) options.num_labels = labels;
  return options;
}

// AUROC and average precision of a container, one row a batch.
std::vector<double> Areas(const MetricsOptions& options, const torch::Tensor& scores, const torch::Tensor& target,
                          bool saved = false) {
  auto metrics = *BuildMetrics(options);
  for (int64_t i = 0; i < scores.size(0); ++i) {
    metrics->Update(scores.narrow(0, i, 1), target.narrow(0, i, 1));
    if (!saved) continue;
    auto again = *BuildMetrics(options);
    EXPECT_TRUE(again->LoadState(*metrics->StateTensors()).ok());
    metrics = std::move(again);
  }
  const MetricValues values = *metrics->Average();
  return {FindValue(values, "auroc")->item<double>(), FindValue(values, "auprc")->item<double>()};
}

const std::vector<double> kPerfect = {1, 1};

TEST(ScoreEdges, LogitsThatSaturateASigmoidAreRankedAsGiven) {
  const torch::Tensor target = torch::tensor({0, 0, 1, 1});
  for (const float sign : {1.0F, -1.0F}) {
    const torch::Tensor logits = torch::tensor({20.0F, 30.0F, 40.0F, 50.0F}) * sign;
    const torch::Tensor labels = sign > 0 ? target : 1 - target;
    for (const Scores scores : {Scores::kLogits, Scores::kDetect}) {
      for (const auto type : {torch::kFloat32, torch::kFloat64, torch::kHalf, torch::kBFloat16, torch::kInt64}) {
        EXPECT_EQ(metrics::Auroc(logits.to(type), labels, With(scores)).item<double>(), 1) << type;
        EXPECT_EQ(metrics::Auprc(logits.to(type), labels, With(scores)).item<double>(), 1) << type;
      }
      const MetricsOptions options{.type = "binary", .scores = scores};
      EXPECT_EQ(Areas(options, logits, labels), kPerfect);
      EXPECT_EQ(Areas(options, logits, labels, /*saved=*/true), kPerfect);
    }
  }
}

TEST(ScoreEdges, SoDoThoseOfSeveralClassesAndLabels) {
  const torch::Tensor target = torch::tensor({0, 0, 1, 1});
  const torch::Tensor column = torch::tensor({20.0F, 30.0F, 40.0F, 50.0F});
  const torch::Tensor classes = torch::stack({torch::zeros({4}), column}, 1);
  const torch::Tensor labels = torch::stack({column, -column}, 1);
  for (const Scores scores : {Scores::kLogits, Scores::kDetect}) {
    EXPECT_EQ(metrics::Auroc(classes, target, With(scores, 2)).item<double>(), 1);
    EXPECT_EQ(metrics::Auroc(classes.to(torch::kBFloat16), target, With(scores, 2)).item<double>(), 1);
    const MetricsOptions of_classes{.type = "multiclass", .num_classes = 2, .scores = scores};
    EXPECT_EQ(Areas(of_classes, classes, target)[0], 1);
    EXPECT_EQ(Areas(of_classes, classes, target, /*saved=*/true)[0], 1);
    const MetricsOptions of_labels{.type = "multilabel", .num_labels = 2, .scores = scores};
    EXPECT_EQ(Areas(of_labels, labels, torch::stack({target, 1 - target}, 1)), kPerfect);
  }
}

TEST(ScoreEdges, LogitsRankAsTheirProbabilitiesDo) {
  torch::manual_seed(3);
  const torch::Tensor logits = torch::randn({200, 4}, torch::kFloat64) * 3;
  const torch::Tensor target = torch::randint(0, 4, {200});
  const torch::Tensor binary = target % 2;
  for (const auto average : {metrics::Average::kMacro, metrics::Average::kMicro, metrics::Average::kWeighted}) {
    FunctionOptions given = With(Scores::kLogits, 4), made = With(Scores::kProbabilities, 4);
    given.average = made.average = average;
    EXPECT_NEAR(metrics::Auroc(logits, target, given).item<double>(),
                metrics::Auroc(logits.softmax(1), target, made).item<double>(), 1e-6);
    EXPECT_NEAR(metrics::Auprc(logits, target, given).item<double>(),
                metrics::Auprc(logits.softmax(1), target, made).item<double>(), 1e-6);
  }
  const torch::Tensor one = logits.select(1, 0);
  EXPECT_NEAR(metrics::Auroc(one, binary, With(Scores::kLogits)).item<double>(),
              metrics::Auroc(one.sigmoid(), binary, With(Scores::kProbabilities)).item<double>(), 1e-6);
}

TEST(ScoreEdges, ScoresOfTheHistoryAreProbabilitiesAndOldStatesAreRead) {
  const torch::Tensor logits = torch::tensor({-2.0F, 0.5F, 3.0F}), target = torch::tensor({0, 1, 1});
  auto fresh = [] { return *GlobalMetrics::Create({metrics::BinaryAuroc()}, {.scores = Scores::kLogits}); };
  auto seen = fresh();
  seen->Update(logits, target);
  EXPECT_TRUE(torch::equal(seen->LocalState().samples.input, logits.sigmoid()));
  TensorMap state = *seen->StateTensors();
  ASSERT_TRUE(state.contains("history.logits"));
  // As version 12 wrote it.
  state.erase("history.logits");
  state.erase("nan_scores");
  state["history.input"] = logits.sigmoid();
  auto loaded = fresh();
  ASSERT_TRUE(loaded->LoadState(state).ok());
  EXPECT_TRUE(torch::allclose(loaded->LocalState().samples.input, logits.sigmoid()));
  EXPECT_EQ((*loaded->Average())[0].second.item<double>(), 1);
}

TEST(ScoreEdges, NanAmongTheScoresMakesEveryValueNan) {
  for (const auto* type : {"binary", "multiclass", "multilabel"}) {
    const int64_t width = std::string(type) == "binary" ? 1 : 3;
    torch::Tensor scores = torch::rand({6, width}).softmax(1), target = torch::tensor({0, 1, 0, 1, 1, 0});
    if (width == 1) scores = torch::rand({6});
    if (std::string(type) == "multilabel") target = torch::randint(0, 2, {6, 3});
    torch::Tensor broken = scores.clone();
    broken.view({6, -1})[2][width - 1] = kNan;
    for (const MetricMode mode : {MetricMode::kGlobal, MetricMode::kStream}) {
      for (const Scores how : {Scores::kProbabilities, Scores::kLogits, Scores::kDetect}) {
        MetricsOptions options{.type = type, .mode = mode, .scores = how};
        options.num_classes = options.num_labels = width > 1 ? std::optional<int64_t>(width) : std::nullopt;
        auto metrics = *BuildMetrics(options);
        metrics->Update(scores, target);
        metrics->Update(broken, target);
        for (const auto values = *metrics->Value(); const auto& [name, value] : values)
          EXPECT_TRUE(value.isnan().all().item<bool>()) << name;
        metrics->Update(scores, target);
        for (const auto values = *metrics->Average(); const auto& [name, value] : values)
          EXPECT_TRUE(value.isnan().all().item<bool>()) << type << " " << name;
        metrics->Reset();
        metrics->Update(scores, target);
        for (const auto values = *metrics->Average(); const auto& [name, value] : values)
          EXPECT_FALSE(value.isnan().any().item<bool>()) << name;
      }
    }
  }
  const torch::Tensor scores = torch::tensor({0.1F, kNan, 0.9F}), target = torch::tensor({0, 1, 1});
  for (auto* const function : {metrics::Auroc, metrics::Auprc, metrics::Accuracy, metrics::Mcc, metrics::Recall,
                               metrics::CohenKappa, metrics::CalibrationError})
    EXPECT_TRUE(function(scores, target, {}).isnan().all().item<bool>());
  EXPECT_EQ(metrics::Auroc(scores, torch::tensor({0, -100, 1})).item<double>(), 1) << "one that does not count";
  EXPECT_TRUE(metrics::ExactArea(metrics::Curve::kAuroc, scores, target == 1, {}).isnan().item<bool>());
}

using Function = torch::Tensor (*)(const NestedValue&, const NestedValue&, const FunctionOptions&);
torch::Tensor F1OfAll(const NestedValue& input, const NestedValue& target, const FunctionOptions& options) {
  return metrics::F1Score(input, target, options);
}
constexpr Function kFunctions[] = {
    metrics::Accuracy,     metrics::Precision, metrics::Recall,      metrics::Specificity, metrics::BalancedAccuracy,
    metrics::JaccardIndex, metrics::Iou,       metrics::HammingLoss, metrics::FBetaScore,  F1OfAll,
    metrics::Auroc,        metrics::Auprc,     metrics::Mcc};

// Scores, targets and options of each kind of task: everything is told apart perfectly.
struct Perfect {
  torch::Tensor scores, target;
  FunctionOptions options;
};
std::vector<Perfect> PerfectAt(double low, double high) {
  const torch::Tensor binary = torch::tensor({0, 1, 0, 1});
  const auto scored = [&](const torch::Tensor& yes) {
    return torch::where(yes, torch::full({}, high, torch::kFloat64), torch::full({}, low, torch::kFloat64));
  };
  const torch::Tensor classes = torch::tensor({0, 1, 2, 1});
  const torch::Tensor one_hot = torch::one_hot(classes, 3).to(torch::kBool), labels = one_hot.to(torch::kInt64);
  return {{scored(binary == 1), binary, With(Scores::kLogits)},
          {scored(one_hot), classes, With(Scores::kLogits, 3)},
          {scored(one_hot), labels, With(Scores::kLogits, 0, 3)}};
}

TEST(ScoreEdges, EveryFunctionIsNanWhereAScoreIs) {
  for (const Perfect& task : PerfectAt(-3, 3)) {
    for (const auto type : {torch::kFloat64, torch::kFloat32, torch::kHalf, torch::kBFloat16}) {
      torch::Tensor scores = task.scores.to(type);
      scores.view({-1})[2] = kNan;
      for (size_t i = 0; i < std::size(kFunctions); ++i) {
        EXPECT_TRUE(kFunctions[i](scores, task.target, task.options).isnan().all().item<bool>())
            << "function " << i << " of " << type;
      }
    }
  }
}

TEST(ScoreEdges, TheLargestNumbersOfATypeAreScoresLikeOthers) {
  const std::pair<torch::Dtype, double> largest[] = {{torch::kFloat64, std::numeric_limits<double>::max()},
                                                     {torch::kFloat32, std::numeric_limits<float>::max()},
                                                     {torch::kHalf, 65504.0},
                                                     {torch::kBFloat16, 3.3895e38}};
  for (const auto& [type, most] : largest) {
    for (const double low : {-most, 0.0}) {
      for (const Perfect& task : PerfectAt(low == 0 ? -1.0 : low, most)) {
        for (size_t i = 0; i < std::size(kFunctions); ++i) {
          const double wanted = kFunctions[i] == metrics::HammingLoss ? 0 : 1;
          EXPECT_EQ(kFunctions[i](task.scores.to(type), task.target, task.options).item<double>(), wanted)
              << "function " << i << " of " << type << " from " << low;
        }
      }
    }
  }
}

TEST(ScoreEdges, ErrorsOfNarrowTypesDoNotOverflow) {
  auto metrics = *GlobalMetrics::Create({metrics::Mse(), metrics::Rmse(), metrics::Mae()});
  const torch::Tensor target = torch::zeros({2}, torch::kHalf);
  metrics->Update(torch::full({2}, 300.0, torch::kHalf), target);
  const MetricValues values = *metrics->Average();
  EXPECT_EQ(FindValue(values, "mse")->item<double>(), 90000) << "beyond float16";
  EXPECT_EQ(FindValue(values, "rmse")->item<double>(), 300);
  metrics->Update(torch::tensor({kNan, 1.0F}).to(torch::kHalf), target);
  for (const auto all = *metrics->Average(); const auto& [name, value] : all)
    EXPECT_TRUE(std::isnan(value.item<double>())) << name;
}

TEST(ScoreEdges, InfiniteLogitsHaveAPlace) {
  const torch::Tensor logits = torch::tensor({-kInf, -1.0F, 1.0F, kInf}), target = torch::tensor({0, 0, 1, 1});
  for (const Scores scores : {Scores::kLogits, Scores::kDetect}) {
    EXPECT_EQ(metrics::Auroc(logits, target, With(scores)).item<double>(), 1);
    EXPECT_EQ(metrics::Auprc(logits, target, With(scores)).item<double>(), 1);
    EXPECT_EQ(metrics::Accuracy(logits, target, With(scores)).item<double>(), 1);
  }
  // Classes that are ruled out.
  const torch::Tensor masked = torch::tensor({{1.0F, -kInf, 0.0F}, {0.0F, 2.0F, -kInf}, {-kInf, 0.0F, 3.0F}});
  EXPECT_EQ(metrics::Auroc(masked, torch::tensor({0, 1, 2}), With(Scores::kLogits, 3)).item<double>(), 1);
}

TEST(ScoreEdges, NarrowScoresDecideAsWideOnesDo) {
  // Their own sigmoid and softmax round to one half, and to one.
  const torch::Tensor tiny = torch::tensor({1e-4F, -1e-4F}, torch::kHalf);
  EXPECT_EQ(metrics::Accuracy(tiny, torch::tensor({1, 0}), With(Scores::kLogits)).item<double>(), 1);
  const torch::Tensor close = torch::tensor({{30.0F, 30.125F}, {-9.0F, 12.0F}}).to(torch::kBFloat16);
  const torch::Tensor far = torch::tensor({{100.0F, 200.0F, 199.0F}, {1e4F, 2e4F, 3e4F}}).to(torch::kHalf);
  EXPECT_EQ(metrics::Accuracy(close, torch::tensor({1, 1}), With(Scores::kLogits, 2)).item<double>(), 1);
  EXPECT_EQ(metrics::Accuracy(far, torch::tensor({1, 2}), With(Scores::kLogits, 3)).item<double>(), 1);
}

TEST(ScoreEdges, LargeIntegersAreNotMadeEqual) {
  const int64_t large = (int64_t{1} << 24) + 1;
  const torch::Tensor scores = torch::tensor({large, large + 1, large + 2, large + 3});
  EXPECT_EQ(metrics::Auroc(scores, torch::tensor({0, 0, 1, 1}), With(Scores::kLogits)).item<double>(), 1);
}

TEST(ScoreEdges, CountsBeyondFloat32AreExact) {
  const int64_t many = (int64_t{1} << 24) + 1;
  const torch::Tensor confusion = torch::tensor({many, int64_t{1}, int64_t{1}, many}).view({2, 2});
  EXPECT_NEAR(
      metrics::RatioOf(metrics::Ratio::kAccuracy, confusion * 3, MetricTask::kBinary, metrics::Average::kMacro, 1)
          .item<double>(),
      static_cast<double>(many) / static_cast<double>(many + 1), 1e-7);
  AverageMeter meter;
  meter.Update(1.0, many);
  meter.Update(0.0, 1);
  EXPECT_EQ(meter.count(), many + 1);
  EXPECT_DOUBLE_EQ(meter.Average()->item<double>(), static_cast<double>(many) / static_cast<double>(many + 1));
}

TEST(ScoreEdges, RegressionKeepsTheDigitsOfTheWiderSide) {
  const torch::Tensor target = torch::tensor({1.0F, 2.0F}, torch::kHalf);
  const torch::Tensor prediction = torch::tensor({1.0001F, 2.0001F});
  auto metrics = *GlobalMetrics::Create({metrics::Mae()});
  metrics->Update(prediction, target);
  EXPECT_NEAR((*metrics->Average())[0].second.item<double>(), 1e-4, 1e-6);
  auto ranks = *GlobalMetrics::Create({metrics::Spearman(), metrics::Pearson()});
  ranks->Update(torch::tensor({1.0F, kNan, 3.0F, 4.0F}), torch::tensor({1.0F, 2.0F, 3.0F, 4.0F}));
  for (const auto values = *ranks->Average(); const auto& [name, value] : values)
    EXPECT_TRUE(std::isnan(value.item<double>())) << name;
}

// Batch 1 knows classes 0 and 1, batch 2 classes 1 and 2.
TEST(ScoreEdges, EntriesThatABatchDoesNotKnowLeaveTheOthersAlone) {
  metrics::MetricOptions none;
  none.average = metrics::Average::kNone;
  const torch::Tensor scores = torch::tensor({{0.7F, 0.2F, 0.1F}, {0.2F, 0.7F, 0.1F}, {0.6F, 0.3F, 0.1F}});
  const torch::Tensor first = torch::tensor({0, 1, 0}), second = torch::tensor({1, 2, 1});
  const auto value = [&](const torch::Tensor& target) {
    FunctionOptions options = With(Scores::kProbabilities, 3);
    options.average = metrics::Average::kNone;
    return metrics::Auprc(scores, target, options);
  };
  auto metrics = *StreamMetrics::Create({metrics::MulticlassAuprc(3, none), metrics::MulticlassAccuracy(3)});
  metrics->Update(scores, first);
  metrics->Update(scores, second);
  metrics->Update(scores, second);
  const torch::Tensor mean = (*metrics->Average())[0].second;
  EXPECT_NEAR(mean[0].item<double>(), value(first)[0].item<double>(), 1e-6);
  EXPECT_NEAR(mean[1].item<double>(), (value(first)[1].item<double>() + 2 * value(second)[1].item<double>()) / 3, 1e-6);
  EXPECT_NEAR(mean[2].item<double>(), value(second)[2].item<double>(), 1e-6);
  EXPECT_EQ(*metrics->Samples(false, false), 9);
  // A state goes on from there.
  auto again = *StreamMetrics::Create({metrics::MulticlassAuprc(3, none), metrics::MulticlassAccuracy(3)});
  ASSERT_TRUE(again->LoadState(*metrics->StateTensors()).ok());
  for (auto* one : {&metrics, &again}) (*one)->Update(scores, first);
  EXPECT_TRUE(torch::equal((*metrics->Average())[0].second, (*again->Average())[0].second));
}

TEST(ScoreEdges, AnAggregateWeighsEachValueByWhatItIsAMeanOf) {
  const torch::Tensor two = torch::tensor({0.3F, 0.7F}), four = torch::tensor({0.2F, 0.4F, 0.6F, 0.8F});
  MetricFunc fragile{"fragile", metrics::BinaryRecall().needs, [](const MetricState& state) {
                       const torch::Tensor positives = state.confusion.at(1)[1].sum();
                       return torch::where(positives > 0, torch::ones({}), torch::full({}, std::nan("")));
                     }};
  auto others = *MultiTaskMetrics::Create({.aggregate = Aggregate::kMicro});
  const auto value = [](double number) { return [number](const MetricState&) { return torch::tensor(number); }; };
  MetricFunc one{"steady", metrics::BinaryRecall().needs, value(1)}, zero{"steady", one.needs, value(0)};
  MetricFunc low = fragile;
  low.compute = [inner = fragile.compute](const MetricState& state) { return inner(state) - 1; };
  ASSERT_TRUE(others.Add("a", *StreamMetrics::Create({fragile, one})).ok());
  ASSERT_TRUE(others.Add("b", *StreamMetrics::Create({low, zero})).ok());
  // Of task a two of six samples are known to the first metric, of task b all six.
  ASSERT_TRUE(others.Update("a", two, torch::tensor({1, 0})).ok());
  ASSERT_TRUE(others.Update("a", four, torch::zeros({4}, torch::kInt64)).ok());
  ASSERT_TRUE(others.Update("b", two, torch::tensor({1, 0})).ok());
  ASSERT_TRUE(others.Update("b", four, torch::tensor({1, 0, 0, 0})).ok());
  const MetricValues found = *others.Average();
  EXPECT_NEAR(FindValue(found, "aggregate/fragile")->item<double>(), 2.0 / 8, 1e-9);
  EXPECT_NEAR(FindValue(found, "aggregate/steady")->item<double>(), 6.0 / 12, 1e-9);
}

}  // namespace
}  // namespace athanor

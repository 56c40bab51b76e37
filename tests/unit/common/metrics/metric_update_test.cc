// What goes into metrics: ragged batches are aligned or refused, updates do not wait for the device, labels are what
// they are taken for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/functional.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/metrics/multitask_metrics.h"
#include "tests/support/foreign_device.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

NestedTensor Ragged(const std::vector<std::vector<int64_t>>& shapes, torch::Dtype dtype = torch::kFloat32) {
  std::vector<torch::Tensor> elements;
  for (const std::vector<int64_t>& shape : shapes) elements.push_back(torch::zeros(shape, dtype));
  return NestedTensor(elements);
}

TEST(PackedPair, RefusesWhatIsNotAligned) {
  const auto refused = [](const NestedValue& input, const NestedValue& target, const std::string& why) {
    EXPECT_THAT(ErrorOf([&] { PackedPair(input, target); }), HasSubstr(why));
    EXPECT_THAT(ErrorOf([&] { metrics::Accuracy(input, target); }), HasSubstr(why));
  };
  refused(Ragged({{3}, {2}}), Ragged({{2}, {3}}), "element 0 has lengths [3] and [2]");
  refused(Ragged({{2}, {1}}), Ragged({{3}}), "2 and 1 elements");
  refused(Ragged({{2, 3}, {3, 2}}), Ragged({{3, 2}, {2, 3}}), "element 0 has lengths [2, 3] and [3, 2]");
  refused(Ragged({{2, 3}, {1, 3}}), Ragged({{3, 2}, {3, 1}}), "the same dims must vary");
  refused(Ragged({{2, 4}, {2, 3}}), Ragged({{2}, {2}}), "the same dims must vary");
  refused(Ragged({{3}, {2}}), torch::zeros({3, 3}), "batch size");
  refused(Ragged({{3}, {2}}), torch::zeros({2, 2}), "too narrow");
  refused(Ragged({{3}, {2}}), torch::zeros({2}), "the same dims must vary");
  refused(Ragged({{3, 5}, {2, 5}}), torch::zeros({2}), "one dim more or less");
}

TEST(PackedPair, AlignsByTheNestedOne) {
  const torch::Tensor scores = torch::rand({2, 3, 4}), labels = torch::tensor({{0, 1, 2}, {3, 0, -7}});
  const NestedTensor ragged_scores({scores[0], scores[1].narrow(0, 0, 2)});
  const NestedTensor ragged_labels({labels[0], labels[1].narrow(0, 0, 2)});
  const torch::Tensor flat_scores = torch::cat({scores[0], scores[1].narrow(0, 0, 2)});
  const torch::Tensor flat_labels = torch::tensor({0, 1, 2, 3, 0});
  const std::vector<std::pair<NestedValue, NestedValue>> pairs = {
      {ragged_scores, ragged_labels}, {ragged_scores, labels}, {scores, ragged_labels}};
  for (const auto& [input, target] : pairs) {
    const LabeledBatch pair = PackedPair(input, target);
    EXPECT_TRUE(torch::equal(pair.input, flat_scores));
    EXPECT_TRUE(torch::equal(pair.target, flat_labels));
    const metrics::FunctionOptions options{.num_classes = 4, .scores = Scores::kLogits};
    EXPECT_TRUE(
        torch::equal(metrics::Accuracy(input, target, options), metrics::Accuracy(flat_scores, flat_labels, options)));
    auto container = *BuildMetrics({.type = "multiclass", .num_classes = 4, .scores = Scores::kLogits});
    container->Update(input, target);
    EXPECT_EQ(*container->Samples(false, false), 5);
    EXPECT_TRUE(container->Average().ok());
  }
  // B x L x 1 scores with B x L labels, and the other way round; L x B with batch_first = false.
  const torch::Tensor one = scores.narrow(2, 0, 1);
  const LabeledBatch binary = PackedPair(one, ragged_labels);
  EXPECT_TRUE(torch::equal(binary.input, flat_scores.narrow(1, 0, 1)));
  NestedTensor time_first = ragged_labels;
  time_first.set_batch_first(false);
  EXPECT_TRUE(torch::equal(PackedPair(scores.transpose(0, 1), time_first).input, flat_scores));
  EXPECT_TRUE(torch::equal(PackedPair(ragged_scores.WithView(time_first.view()), labels.t()).target, flat_labels));
  // A label in a dim of its own: no score is cut off for it.
  const NestedTensor label_columns({labels[0].unsqueeze(1), labels[1].narrow(0, 0, 2).unsqueeze(1)});
  EXPECT_TRUE(torch::equal(PackedPair(scores, label_columns).input, flat_scores));
  EXPECT_TRUE(torch::equal(PackedPair(ragged_scores, labels.unsqueeze(2)).target, flat_labels.unsqueeze(1)));
  // Classes of one number for each element: a batch of scores and a label each.
  EXPECT_EQ(PackedPair(Ragged({{4}, {4}}), torch::tensor({1, 0})).input.numel(), 8);
}

void ExpectNoTraffic(const std::string& what, const std::function<void()>& run) {
  run();  // what is made once may be put on the device once
  const int64_t waits = ForeignWaits(), uploads = ForeignUploads();
  run();
  EXPECT_EQ(ForeignWaits(), waits) << what;
  EXPECT_EQ(ForeignUploads(), uploads) << what;
}

TEST(Updates, DoNotWaitForTheDevice) {
  using namespace metrics;  // NOLINT(google-build-using-namespace): the descriptors of all tasks
  const torch::Tensor scores = torch::rand({8}).to(ForeignDevice());
  const torch::Tensor table = torch::rand({8, 3}).softmax(1).to(ForeignDevice());
  const torch::Tensor labels = torch::tensor({0, 1, 1, 0, 1, 0, -100, 1}).to(ForeignDevice());
  const torch::Tensor classes = torch::tensor({0, 1, 2, 0, 1, 2, -100, 1}).to(ForeignDevice());
  const torch::Tensor floats = labels.to(torch::kFloat32);
  struct One {
    std::string name;
    MetricsOptions options;
    torch::Tensor input, target;
  };
  const std::vector<One> all = {
      {"binary", {.type = "binary"}, scores, labels},
      {"binary, detected", {.type = "binary", .scores = Scores::kDetect}, scores, floats},
      {"binary, all", {.type = "binary", .options = {.ignore_index = std::nullopt}}, scores, labels.clamp(0, 1)},
      {"multiclass", {.type = "multiclass", .num_classes = 3, .scores = Scores::kLogits}, table, classes},
      {"multilabel", {.type = "multilabel", .num_labels = 3}, table, (table > 0.3).to(torch::kInt64)},
      {"regression", {.type = "regression"}, scores, floats},
      {"regression, all", {.type = "regression", .ignore_nan = false}, scores, floats},
      {"binned",
       {.type = "multiclass",
        .num_classes = 3,
        .metrics = {MulticlassAuroc(3, {.thresholds = 9}), MulticlassCalibrationError(3),
                    MulticlassAccuracy(3, {.k = 2}), MulticlassCohenKappa(3), MulticlassConfusionMatrix(3)}},
       table,
       classes},
  };
  for (const MetricMode mode : {MetricMode::kGlobal, MetricMode::kStream}) {
    for (const One& one : all) {
      MetricsOptions options = one.options;
      options.mode = mode;
      auto on_device = *BuildMetrics(options), on_host = *BuildMetrics(options);
      ExpectNoTraffic(one.name, [&] { on_device->Update(one.input, one.target); });
      for (int i = 0; i < 2; ++i) on_host->Update(one.input.cpu(), one.target.cpu());
      EXPECT_EQ(*on_device->Text(), *on_host->Text()) << one.name;
    }
  }
  // Functions, too, when nothing can be left out; one of them has no value.
  StreamOptions plain;
  plain.preprocess_given = true;
  auto functions = *StreamMetrics::Create({{"bias", [](auto& p, auto& t) { return (p - t).mean(); }},
                                           {"nothing", [](auto& p, auto&) { return p.narrow(0, 0, 0); }}},
                                          plain);
  ExpectNoTraffic("functions", [&] { functions->Update(scores, floats); });
  MultiTaskMetrics tasks = *MultiTaskMetrics::Create();
  ASSERT_TRUE(tasks.Add("a", *BuildMetrics({.type = "binary"})).ok());
  ExpectNoTraffic("tasks", [&] { ASSERT_TRUE(tasks.UpdateTasks({{"a", {scores, labels}}}).ok()); });
}

TEST(Updates, OfMetersStayOnTheDevice) {
  const torch::Tensor value = torch::tensor(0.5).to(ForeignDevice()), n = torch::tensor(3).to(ForeignDevice());
  AverageMeter meter;
  ExpectNoTraffic("a tensor", [&] { meter.Update(value, 3); });
  ExpectNoTraffic("a number after it", [&] { meter.Update(1.5, 3); });
  ExpectNoTraffic("weights of the device", [&] { meter.Update(value, n); });
  EXPECT_EQ(meter.count(), 18);
  EXPECT_NEAR(meter.LocalAverage().item<double>(), (12 * 0.5 + 6 * 1.5) / 18, 1e-12);
}

TEST(Labels, SoftOnesAreRefused) {
  const torch::Tensor scores = torch::tensor({0.2F, 0.8F}), soft = torch::tensor({0.0F, 0.7F});
  EXPECT_THAT(ErrorOf([&] { metrics::Accuracy(scores, soft); }), HasSubstr("1 labels are neither a class"));
  EXPECT_EQ(metrics::Accuracy(scores, torch::tensor({0.0F, 1.0F})).item<double>(), 1) << "whole numbers are labels";
  EXPECT_EQ(metrics::Accuracy(scores, torch::tensor({-100.0F, 1.0F})).item<double>(), 1) << "one is left out";
  // Not the index to be ignored, though it would become it.
  EXPECT_THAT(ErrorOf([&] { metrics::Accuracy(scores, torch::tensor({-100.5F, 1.0F})); }), HasSubstr("1 labels"));
  EXPECT_THAT(ErrorOf([&] { metrics::Accuracy(scores, torch::tensor({std::nanf(""), 1.0F})); }), HasSubstr("1 labels"));
  for (const MetricMode mode : {MetricMode::kGlobal, MetricMode::kStream}) {
    auto metrics = *BuildMetrics({.type = "multilabel", .mode = mode, .num_labels = 2});
    metrics->Update(scores.reshape({1, 2}), soft.reshape({1, 2}));
    for (const absl::Status& status :
         {metrics->Value().status(), metrics->Average().status(), metrics->Text().status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(status.message()), HasSubstr("soft labels"));
    }
    // It is remembered by a state, and forgotten by a reset.
    auto loaded = *BuildMetrics({.type = "multilabel", .mode = mode, .num_labels = 2});
    ASSERT_TRUE(loaded->LoadState(*metrics->StateTensors()).ok());
    EXPECT_FALSE(loaded->Average().ok());
    metrics->Reset();
    EXPECT_TRUE(metrics->Average().ok());
  }
}

TEST(Labels, CountingAllContradictsIgnoringSome) {
  const auto create = [](std::vector<MetricFunc> metrics) {
    return GlobalMetrics::Create(std::move(metrics)).status();
  };
  const absl::Status status = create({metrics::BinaryAccuracy({.ignore_index = std::nullopt}), metrics::BinaryF1()});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ignore_index: none (every label counts) and -100"));
  EXPECT_TRUE(create({metrics::BinaryAccuracy({.ignore_index = std::nullopt}),
                      metrics::BinaryF1({.ignore_index = std::nullopt})})
                  .ok());
  // One's own that says nothing goes with both.
  MetricFunc own{
      "own", {.task = MetricTask::kBinary, .history = true}, [](const MetricState& s) { return s.samples.input; }};
  EXPECT_TRUE(create({metrics::BinaryAccuracy(), own}).ok());
}

TEST(MultiTask, IsAMetricSet) {
  MultiTaskMetrics made = *MultiTaskMetrics::Create({.aggregate = Aggregate::kMacro});
  ASSERT_TRUE(made.Add("a", *BuildMetrics({.type = "binary", .metrics = {metrics::BinaryAccuracy()}})).ok());
  std::unique_ptr<MetricSet> metrics = std::make_unique<MultiTaskMetrics>(std::move(made));
  const torch::Tensor scores = torch::tensor({0.2F, 0.8F});
  metrics->Update(scores, torch::tensor({0, 1}));  // there is one task only
  auto& tasks = dynamic_cast<MultiTaskMetrics&>(*metrics);
  ASSERT_TRUE(tasks.Add("b", *BuildMetrics({.type = "binary", .metrics = {metrics::BinaryAccuracy()}})).ok());
  EXPECT_THAT(ErrorOf([&] { metrics->Update(scores, torch::tensor({0, 1})); }), HasSubstr("for 2 tasks (a, b)"));
  ASSERT_TRUE(metrics->UpdateTasks({{"b", {scores, torch::tensor({1, 1})}}}).ok());
  const absl::Status unknown =
      metrics->UpdateTasks({{"a", {scores, torch::tensor({0, 0})}}, {"z", {scores, torch::tensor({0, 0})}}});
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  const MetricValues values = *metrics->Average();
  ASSERT_EQ(values.size(), 3u);
  EXPECT_EQ(FindValue(values, "a/acc")->item<double>(), 1) << "of an update that was refused, nothing counts";
  EXPECT_EQ(FindValue(values, "b/acc")->item<double>(), 0.5);
  EXPECT_EQ(FindValue(values, "aggregate/acc")->item<double>(), 0.75);
  EXPECT_EQ(*metrics->Samples(false, false), 4);
  auto other = *BuildMetrics({.type = "binary"});
  EXPECT_EQ(other->UpdateTasks({}).code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace athanor

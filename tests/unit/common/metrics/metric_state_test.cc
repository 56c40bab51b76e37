// Metrics that were saved, written, read and loaded go on as if nothing had happened, bit for bit; a state that does
// not fit is named and changes nothing.
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/io/tensor_file.h"
#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/metric_factory.h"
#include "athanor/metrics/multitask_metrics.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string name;
  MetricsOptions options;
  torch::Dtype dtype = torch::kFloat32;
};

std::unique_ptr<MetricSet> Make(const Case& one) {
  auto made = BuildMetrics(one.options);
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

// Of odd sizes; some labels are left out.
LabeledBatch BatchOf(const Case& one, int64_t number) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(100 + number);  // ranks are threads
  const int64_t rows = 5 + 3 * number;
  const auto floats = torch::TensorOptions().dtype(torch::kFloat32);
  const std::string& type = one.options.type;
  torch::Tensor input, target;
  if (type == "regression") {
    const int64_t outputs = one.options.num_outputs.value_or(1);
    target = torch::randn(outputs == 1 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, outputs}, generator,
                          floats) +
             3;
    input = target + torch::randn(target.sizes(), generator, floats);
    target[0] = std::nan("");
    return {input.to(one.dtype), target.to(one.dtype)};
  }
  if (type == "multiclass") {
    input = torch::randn({rows, 4}, generator, floats).softmax(1);
    target = torch::randint(0, 4, {rows}, generator, torch::kInt64);
  } else {
    const std::vector<int64_t> shape =
        type == "binary" ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, *one.options.num_labels};
    target = torch::randint(0, 2, shape, generator, torch::kInt64);
    input = torch::sigmoid(torch::randn(shape, generator, floats) + target);
  }
  target.view({-1})[1] = -100;
  return {input.to(one.dtype), target};
}

void Feed(const Case& one, MetricSet& metrics, int64_t from, int64_t until) {
  for (int64_t i = from; i < until; ++i) {
    const LabeledBatch batch = BatchOf(one, i);
    metrics.Update(batch.input, batch.target);
  }
}

torch::Tensor Bytes(const torch::Tensor& tensor) {
  return tensor.contiguous().reshape({-1}).view(torch::kByte);
}

void ExpectSameBits(const absl::StatusOr<MetricValues>& expected, const absl::StatusOr<MetricValues>& found) {
  ASSERT_TRUE(expected.ok() && found.ok()) << expected.status() << " " << found.status();
  ASSERT_EQ(expected->size(), found->size());
  for (size_t i = 0; i < expected->size(); ++i) {
    const torch::Tensor &a = (*expected)[i].second, &b = (*found)[i].second;
    EXPECT_EQ((*expected)[i].first, (*found)[i].first);
    EXPECT_EQ(a.scalar_type(), b.scalar_type());
    EXPECT_EQ(a.sizes(), b.sizes());
    EXPECT_TRUE(torch::equal(Bytes(a), Bytes(b))) << (*expected)[i].first << ": " << a << " and " << b;
  }
}

void ExpectSameState(const TensorMap& expected, const TensorMap& found) {
  ASSERT_EQ(expected.size(), found.size());
  for (const auto& [key, tensor] : expected) {
    ASSERT_TRUE(found.contains(key)) << key;
    EXPECT_EQ(tensor.scalar_type(), found.at(key).scalar_type()) << key;
    EXPECT_EQ(tensor.sizes(), found.at(key).sizes()) << key;
    EXPECT_TRUE(torch::equal(Bytes(tensor), Bytes(found.at(key)))) << key;
  }
}

// Through a file, as a checkpoint has it.
TensorMap Stored(const TensorMap& state) {
  const std::string path = absl::StrCat(::testing::TempDir(), "metric_state_test.", getpid(), ".safetensors");
  const absl::Status written = WriteTensorFile(path, state);
  EXPECT_TRUE(written.ok()) << written;
  auto file = ReadTensorFile(path);
  EXPECT_TRUE(file.ok()) << file.status();
  std::filesystem::remove(path);
  return file.ok() ? std::move(file->tensors) : TensorMap{};
}

template <class Metrics>
TensorMap StateOf(Metrics& metrics) {
  absl::StatusOr<TensorMap> state = metrics.StateTensors();
  EXPECT_TRUE(state.ok()) << state.status();
  return state.ok() ? *std::move(state) : TensorMap{};
}

std::vector<Case> Cases() {
  using namespace metrics;  // NOLINT(google-build-using-namespace): the descriptors of all tasks
  const auto global = [](const std::string& type, std::vector<MetricFunc> metrics = {}) {
    MetricsOptions options;
    options.type = type;
    options.metrics = std::move(metrics);
    if (type == "multiclass") options.num_classes = 4;
    if (type == "multilabel") options.num_labels = 3;
    return options;
  };
  std::vector<Case> cases = {
      {"binary", global("binary")},
      {"multiclass", global("multiclass")},
      {"multilabel", global("multilabel")},
      {"regression", global("regression")},
      {"accuracy", global("binary", {BinaryAccuracy(), BinaryF1()})},
      {"auroc", global("binary", {BinaryAuroc(), BinaryAuprc()})},
      {"binned", global("multiclass", {MulticlassAuroc(4, {.thresholds = 11}), MulticlassAuprc(4, {.thresholds = 7})})},
      {"matrix", global("multiclass", {MulticlassConfusionMatrix(4), MulticlassAccuracy(4, {.k = 2}),
                                       MulticlassCohenKappa(4), MulticlassCalibrationError(4)})},
      {"labels", global("multilabel", {MultilabelConfusionMatrix(3), MultilabelAuroc(3, {.average = Average::kNone})})},
      {"mse", global("regression", {Mse(), Mae(), Pearson()})},
      {"outputs", global("regression", {Mse(2), Spearman(2), R2Score(2)})},
      {"double", global("regression"), torch::kFloat64},
      {"double scores", global("binary"), torch::kFloat64},
      {"half", global("binary"), torch::kFloat16},
  };
  cases[10].options.num_outputs = 2;
  const size_t count = cases.size();
  for (size_t i = 0; i < count; ++i) {
    Case stream = cases[i];
    stream.name += ", stream";
    stream.options.mode = MetricMode::kStream;
    cases.push_back(std::move(stream));
  }
  return cases;
}

TEST(MetricState, GoesOnBitForBit) {
  for (const Case& one : Cases()) {
    for (int64_t saved_after : {0, 1, 4}) {
      SCOPED_TRACE(one.name + " after " + std::to_string(saved_after));
      auto whole = Make(one);
      Feed(one, *whole, 0, 7);
      auto first = Make(one);
      Feed(one, *first, 0, saved_after);
      const TensorMap state = Stored(StateOf(*first));
      auto second = Make(one);
      Feed(one, *second, 20, 22);  // what was there before does not count
      const absl::Status loaded = second->LoadState(state);
      ASSERT_TRUE(loaded.ok()) << loaded;
      ExpectSameState(state, StateOf(*second));
      ExpectSameBits(first->Average(), second->Average());
      EXPECT_EQ(*first->Samples(false, false), *second->Samples(false, false));
      EXPECT_EQ(*second->Samples(true, false), 0);
      Feed(one, *first, saved_after, 7);
      Feed(one, *second, saved_after, 7);
      ExpectSameBits(whole->Average(), second->Average());
      ExpectSameBits(whole->Average(), first->Average());
      ExpectSameBits(whole->Value(), second->Value());
      EXPECT_EQ(*whole->Text(), *second->Text());
      EXPECT_EQ(*whole->Samples(false, false), *second->Samples(false, false));
    }
  }
}

TEST(MetricState, TheLastBatchIsNotInIt) {
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.name);
    auto metrics = Make(one);
    Feed(one, *metrics, 0, 3);
    ASSERT_TRUE(metrics->LoadState(StateOf(*metrics)).ok());
    const MetricValues batch = *metrics->Batch();
    for (const auto& [name, value] : batch) {
      const bool nothing =
          value.is_floating_point() ? value.isnan().all().item<bool>() : value.eq(0).all().item<bool>();
      EXPECT_TRUE(nothing) << name << " " << value;
    }
  }
}

TEST(MetricState, WhatWasSavedStaysWhenMoreComes) {
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.name);
    auto metrics = Make(one);
    Feed(one, *metrics, 0, 3);
    TensorMap state = StateOf(*metrics), copy;
    for (const auto& [key, tensor] : state) copy[key] = tensor.clone();
    auto loaded = Make(one);
    ASSERT_TRUE(loaded->LoadState(state).ok());
    Feed(one, *metrics, 3, 6);
    ASSERT_TRUE(metrics->Average().ok());
    ExpectSameState(copy, state);
    const absl::StatusOr<MetricValues> before = loaded->Average();
    for (auto& [key, tensor] : state) tensor.zero_();
    ExpectSameState(copy, StateOf(*loaded));
    ExpectSameBits(before, loaded->Average());
  }
}

TEST(MetricState, WhatDoesNotFitIsNamedAndChangesNothing) {
  for (const Case& one : Cases()) {
    auto metrics = Make(one);
    Feed(one, *metrics, 0, 3);
    auto other = Make(one);
    Feed(one, *other, 3, 8);
    const TensorMap good = StateOf(*other), before = StateOf(*metrics);
    const absl::StatusOr<MetricValues> value = metrics->Value(), average = metrics->Average();
    const auto refused = [&](const TensorMap& state, const std::string& key) {
      SCOPED_TRACE(one.name + " " + key);
      const absl::Status status = metrics->LoadState(state);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("'" + key + "'"));
      ExpectSameState(before, StateOf(*metrics));
      ExpectSameBits(value, metrics->Value());
      ExpectSameBits(average, metrics->Average());
    };
    TensorMap state = good;
    state["stranger"] = torch::zeros({});
    refused(state, "stranger");
    for (const auto& [key, tensor] : good) {
      state = good;
      state.erase(key);
      if (key != "nan_scores") refused(state, key);  // states of earlier versions have none
      state[key] = torch::Tensor();
      refused(state, key);
      state[key] = tensor.to(torch::kInt16);
      refused(state, key);
      state[key] = tensor.unsqueeze(0);
      // A mean may be of any shape, but not one number in two ways.
      if (!key.ends_with(".sum") || tensor.dim() == 0) refused(state, key);
      if (tensor.dim() == 0 || key.ends_with(".sum")) continue;
      state[key] = torch::cat({tensor, tensor}, tensor.dim() - 1);
      if (tensor.dim() > 1 || key.starts_with("history.target")) refused(state, key);
    }
    EXPECT_TRUE(metrics->LoadState(good).ok());
    ExpectSameBits(other->Average(), metrics->Average());
  }
}

TEST(MetricState, WrongLabelsAreStillNamedAfterwards) {
  auto metrics = GlobalMetrics::Create({metrics::MulticlassAccuracy(3)});
  auto other = GlobalMetrics::Create({metrics::MulticlassAccuracy(3)});
  ASSERT_TRUE(metrics.ok() && other.ok());
  (*metrics)->Update(torch::rand({4, 3}), torch::tensor({0, 1, 2, 7}));
  ASSERT_TRUE((*other)->LoadState(StateOf(**metrics)).ok());
  EXPECT_THAT(std::string((*other)->Average().status().message()), HasSubstr("1 labels that do not exist"));
}

TEST(MetricState, RanksThatExchangedTheirHistoryGoOn) {
  const std::vector<Case> cases = Cases();
  const auto group_case = [](Case one, ProcessGroup* group) {
    one.options.sync = MakeMeterSync(*group);
    return one;
  };
  for (const Case& plain : {cases[0], cases[3], cases[6], cases[14]}) {
    SCOPED_TRACE(plain.name);
    RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
      const Case one = group_case(plain, group);
      const int64_t from = group->rank() * 10;
      auto whole = Make(one), loaded = Make(one);
      Feed(one, *whole, from, from + 2);
      ASSERT_TRUE(whole->Average().ok());
      Feed(one, *whole, from + 2, from + 3 + group->rank());
      const TensorMap state = StateOf(*whole);
      ASSERT_TRUE(loaded->LoadState(state).ok());
      Feed(one, *whole, from + 5, from + 6);
      Feed(one, *loaded, from + 5, from + 6);
      ExpectSameBits(whole->Average(), loaded->Average());
      ExpectSameBits(whole->Batch(), loaded->Batch());
      EXPECT_EQ(*whole->Samples(false, true), *loaded->Samples(false, true));
      const absl::Status alone = Make(plain)->LoadState(state);
      EXPECT_EQ(alone.ok(), !state.contains("exchanged.input")) << alone;
    });
  }
}

TEST(MetricState, ARankWithoutSamplesLoadsToo) {
  const std::vector<Case> cases = Cases();
  for (const Case& plain : {cases[1], cases[2], cases[10], cases[24]}) {
    SCOPED_TRACE(plain.name);
    auto single = Make(plain);
    ASSERT_TRUE(single->Average().ok()) << "of nothing";
    Feed(plain, *single, 0, 3);
    const absl::StatusOr<MetricValues> expected = single->Average();
    RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
      Case one = plain;
      one.options.sync = MakeMeterSync(*group);
      auto first = Make(one), second = Make(one);
      if (group->rank() == 0) Feed(one, *first, 0, 3);
      ASSERT_TRUE(second->LoadState(StateOf(*first)).ok());
      ExpectSameBits(first->Average(), second->Average());
      const absl::StatusOr<MetricValues> found = second->Average();
      ASSERT_TRUE(expected.ok() && found.ok()) << found.status();
      for (size_t i = 0; i < expected->size(); ++i) {
        EXPECT_TRUE(torch::allclose((*expected)[i].second, (*found)[i].second)) << (*expected)[i].first;
      }
    });
  }
}

TEST(MetricState, AverageMetersKeepNumbersAndTensors) {
  const auto make = [](std::shared_ptr<MeterSync> sync = nullptr) {
    AverageMeters meters(std::move(sync));
    for (const char* name : {"loss", "classes", "never", "on device"}) meters[name];
    return meters;
  };
  const auto feed = [](AverageMeters& meters, int64_t i) {
    meters["loss"].Update(0.1 * static_cast<double>(i), 3 + i);
    meters["classes"].Update(torch::tensor({0.3, 0.1 * static_cast<double>(i)}), i);
    meters["on device"].Update(torch::tensor(0.7F), torch::tensor(i, torch::kInt64));
  };
  AverageMeters whole = make(), loaded = make();
  for (int64_t i = 0; i < 3; ++i) feed(whole, i);
  ASSERT_TRUE(loaded.LoadState(Stored(StateOf(whole))).ok());
  EXPECT_EQ(loaded.count(), whole.count());
  EXPECT_THROW(loaded["loss"].Update(torch::ones({2})), c10::ValueError);
  EXPECT_THROW(loaded["classes"].Update(torch::ones({3})), c10::ValueError);
  feed(whole, 3);
  feed(loaded, 3);
  ExpectSameBits(whole.Average(), loaded.Average());
  ExpectSameBits(whole.Value(), loaded.Value());
  AverageMeters nameless;
  EXPECT_THAT(std::string(nameless.LoadState(StateOf(whole)).message()), HasSubstr("'classes.count'"));
  // A rank without a last batch adds nothing to the others' one.
  RunRanks(2, true, [&](ProcessGroup* group) {
    AverageMeters meters = make(MakeMeterSync(*group));
    feed(meters, 2);
    if (group->rank() == 1) {
      ASSERT_TRUE(meters.LoadState(StateOf(meters)).ok());
    }
    const MetricValues batch = *meters.Batch();
    EXPECT_EQ(FindValue(batch, "loss")->item<double>(), 0.2);
  });
}

TEST(MetricState, TasksLoadTogetherOrNotAtAll) {
  const std::vector<Case> cases = Cases();
  const std::vector<std::pair<std::string, Case>> tasks = {
      {"a", cases[0]}, {"a/b", cases[2]}, {"a%2Fb", cases[3]}, {"metadata/100%", cases[14]}};
  const auto make = [&] {
    auto made = MultiTaskMetrics::Create({.aggregate = Aggregate::kMicro});
    for (const auto& [task, one] : tasks) EXPECT_TRUE(made->Add(task, Make(one)).ok());
    return *std::move(made);
  };
  const auto feed = [&](MultiTaskMetrics& metrics, int64_t from, int64_t until) {
    for (const auto& [task, one] : tasks) {
      if (task != "a" || from > 0) Feed(one, *metrics.Find(task), from, until);
    }
  };
  MultiTaskMetrics whole = make(), loaded = make();
  ASSERT_TRUE(loaded.LoadState(Stored(StateOf(whole))).ok()) << "nothing was seen";
  feed(whole, 0, 3);
  const TensorMap state = Stored(StateOf(whole));
  EXPECT_TRUE(state.contains("a%2Fb/samples") && state.contains("a%252Fb/samples") && state.contains("a/samples"));
  feed(loaded, 1, 5);
  const TensorMap before = StateOf(loaded);
  const absl::StatusOr<TaskValues> value = loaded.ValueByTask();
  const auto refused = [&](const TensorMap& bad, const std::string& what) {
    const absl::Status status = loaded.LoadState(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
    ExpectSameState(before, StateOf(loaded));
    for (size_t i = 0; i < value->size(); ++i) ExpectSameBits((*value)[i].second, (*loaded.ValueByTask())[i].second);
  };
  TensorMap bad = state;
  bad.erase("metadata%2F100%25/acc.sum");
  refused(bad, "task 'metadata/100%': metric state 'acc.sum': missing");
  for (const char* stranger : {"c/samples", "samples", "a/samples/more"}) {
    bad = state;
    bad[stranger] = torch::zeros({});
    refused(bad, stranger == std::string("a/samples/more") ? "'samples/more'" : stranger);
  }
  ASSERT_TRUE(loaded.LoadState(state).ok());
  for (int64_t until : {3, 6}) {
    feed(whole, 3, until);
    feed(loaded, 3, until);
    const absl::StatusOr<TaskValues> expected = whole.AverageByTask(), found = loaded.AverageByTask();
    ASSERT_TRUE(expected.ok() && found.ok());
    ASSERT_EQ(expected->size(), found->size());
    for (size_t i = 0; i < expected->size(); ++i) {
      EXPECT_EQ((*expected)[i].first, (*found)[i].first);
      ExpectSameBits((*expected)[i].second, (*found)[i].second);
    }
  }
}

TEST(MetricState, AContainerThatCannotSaysSo) {
  struct Other : MetricSet {
    void Update(const torch::Tensor& /*input*/, const torch::Tensor& /*target*/) override {}
    absl::StatusOr<MetricValues> Value() override { return MetricValues{}; }
    absl::StatusOr<MetricValues> Batch() override { return MetricValues{}; }
    absl::StatusOr<MetricValues> Average() override { return MetricValues{}; }
    absl::StatusOr<int64_t> Samples(bool /*of_batch*/, bool /*ranks*/) override { return 0; }
    absl::StatusOr<std::string> Text(int /*decimals*/) override { return std::string(); }
    void Reset() override {}
  } other;
  EXPECT_EQ(other.StateTensors().status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(other.LoadState({}).code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace athanor

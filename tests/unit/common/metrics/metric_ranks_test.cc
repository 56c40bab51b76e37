// Metrics over ranks: what one rank alone knows never leaves the others waiting, all ranks read the same bits, and a
// read-out is one exchange (two where it is large). A rank that waits for nothing ends in the timeout of its group, as
// UNAVAILABLE.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/multitask_metrics.h"
#include "tests/support/foreign_device.h"
#include "tests/unit/common/metrics/counting_sync.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using Made = absl::StatusOr<std::unique_ptr<MetricSet>>;
using Maker = std::function<Made(std::shared_ptr<MeterSync>)>;

constexpr absl::Duration kPatience = absl::Seconds(30);  // of a rank that would wait for ever

Made Global(std::vector<MetricFunc> metrics, std::shared_ptr<MeterSync> sync) {
  ASSIGN_OR_RETURN(auto made, GlobalMetrics::Create(std::move(metrics), {.sync = std::move(sync)}));
  return std::unique_ptr<MetricSet>(std::move(made));
}

// The statuses of Average() on two ranks, which must be one.
absl::Status SameStatus(const std::function<absl::Status(ProcessGroup*)>& read) {
  std::vector<absl::Status> found(2);
  RunRanks(2, true, [&](ProcessGroup* group) { found[static_cast<size_t>(group->rank())] = read(group); }, kPatience);
  EXPECT_EQ(found[0], found[1]);
  return found[0];
}

TEST(MetricRanks, AWrongLabelOnOneRankIsEverybodysError) {
  const absl::Status status = SameStatus([](ProcessGroup* group) {
    auto metrics = *Global({metrics::MulticlassAccuracy(3), metrics::MulticlassAuroc(3)}, MakeMeterSync(*group));
    metrics->Update(torch::full({2, 3}, 1.0 / 3), torch::tensor({0, group->rank() == 1 ? 7 : 1}));
    EXPECT_EQ(metrics->Batch().status(), metrics->Average().status());
    return metrics->Average().status();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 labels that do not exist"));
}

TEST(MetricRanks, AWrongLabelOfStreamMetricsToo) {
  const absl::Status status = SameStatus([](ProcessGroup* group) {
    auto metrics = StreamMetrics::Create({metrics::BinaryAccuracy()}, {.sync = MakeMeterSync(*group)});
    (*metrics)->Update(torch::tensor({0.5F, group->rank() == 0 ? 3.0F : 0.5F}), torch::tensor({0, 1}));
    return (*metrics)->Average().status();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 scores outside 0..1"));
}

TEST(MetricRanks, MetersOfOtherShapesAreEverybodysError) {
  const auto read = [](const std::function<void(AverageMeters&, int)>& update) {
    return SameStatus([&](ProcessGroup* group) {
      AverageMeters meters(MakeMeterSync(*group));
      update(meters, group->rank());
      return meters.Average().status();
    });
  };
  absl::Status status =
      read([](AverageMeters& meters, int rank) { meters.Update("a", torch::ones({2 + rank}, torch::kFloat64)); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'a' has another shape on some rank: [2] on rank 0, [3]"));
  status = read(
      [](AverageMeters& meters, int rank) { meters.Update("a", rank == 0 ? torch::ones({2}) : torch::tensor(1.0)); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  // More dims than the exchange once had room for.
  status = read([](AverageMeters& meters, int rank) {
    if (rank == 1) meters.Update("a", torch::ones({1, 2, 1, 2, 1, 2}));
    meters["a"];
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(MetricRanks, OtherNamesAreEverybodysError) {
  using Names = std::vector<std::string>;
  for (const auto& [first, second] : {std::pair{Names{"a"}, Names{"b"}}, std::pair{Names{"a", "b"}, Names{"a"}},
                                      std::pair{Names{}, Names{"a"}}, std::pair{Names{"a", "b"}, Names{"b", "a"}}}) {
    const absl::Status status = SameStatus([&, first = first, second = second](ProcessGroup* group) {
      AverageMeters meters(MakeMeterSync(*group));
      for (const std::string& name : group->rank() == 0 ? first : second) meters[name].Update(1);
      return meters.Average().status();
    });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 has means of"));
  }
}

TEST(MetricRanks, OtherMetricsAreEverybodysError) {
  const auto read = [](const std::function<MetricFunc(int)>& metric) {
    return SameStatus([&](ProcessGroup* group) {
      auto metrics = *Global({metric(group->rank())}, MakeMeterSync(*group));
      metrics->Update(torch::tensor({0.1F, 0.9F}), torch::tensor({0, 1}));
      return metrics->Average().status();
    });
  };
  const absl::Status status =
      read([](int rank) { return rank == 0 ? metrics::BinaryAccuracy() : metrics::BinaryF1(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 has acc"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 has f1"));
  // One name, other rules.
  EXPECT_FALSE(read([](int rank) { return metrics::BinaryAccuracy({.threshold = rank == 0 ? 0.5 : 0.3}); }).ok());
  EXPECT_FALSE(read([](int rank) { return metrics::BinaryAuroc({.thresholds = rank == 0 ? 0 : 100}); }).ok());
  // Something that is no read-out of the same kind at all.
  const absl::Status mixed = SameStatus([](ProcessGroup* group) {
    AverageMeters meters(MakeMeterSync(*group));
    auto metrics = *Global({metrics::BinaryAccuracy()}, MakeMeterSync(*group));
    return group->rank() == 0 ? meters.Average().status() : metrics->Average().status();
  });
  EXPECT_EQ(mixed.code(), absl::StatusCode::kInvalidArgument);
}

TEST(MetricRanks, TasksThatDifferAreEverybodysError) {
  const auto read = [](const MultiTaskOptions& shared, const std::vector<std::string>& names) {
    return SameStatus([&](ProcessGroup* group) {
      MultiTaskOptions options = shared;
      options.sync = MakeMeterSync(*group);
      MultiTaskMetrics metrics = *MultiTaskMetrics::Create(options);
      for (const std::string& name : names) {
        if (group->rank() == 1 && name.starts_with("only")) continue;
        EXPECT_TRUE(metrics.Add(name, *Global({metrics::BinaryAccuracy()}, options.sync)).ok());
      }
      if (metrics.Find("bad") != nullptr)
        metrics.Find("bad")->Update(torch::tensor({0.5F}), torch::tensor({group->rank() == 0 ? 9 : 0}));
      return metrics.Average().status();
    });
  };
  EXPECT_EQ(read({}, {"a", "only 0"}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(read({}, {"only 0"}).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status bad = read({}, {"a", "bad"});
  EXPECT_EQ(bad.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(bad.message()), HasSubstr("task 'bad': 1 labels"));
  const absl::Status weights = read({Aggregate::kWeighted, {{"a", 1}, {"x", 1}}, nullptr}, {"a"});
  EXPECT_THAT(std::string(weights.message()), HasSubstr("rank 0: aggregate weight for an unknown task 'x'"));
}

TEST(MetricRanks, RowsInTheirOwnDtypes) {
  for (const auto dtype : {torch::kInt64, torch::kHalf, torch::kBool}) {
    for (const int64_t count : {3, 40000}) {
      const auto of_rank = [&](int64_t rank) {
        const auto generator = at::make_generator<at::CPUGeneratorImpl>(rank);
        return torch::randint(0, 2, {rank == 1 ? 0 : count + rank, 2}, generator).to(dtype);
      };
      RunRanks(3, true, [&](ProcessGroup* group) {
        auto sync = std::make_shared<CountingSync>(*group);
        const absl::StatusOr<torch::Tensor> all = GatherRows(*sync, of_rank(group->rank()));
        ASSERT_TRUE(all.ok()) << all.status();
        EXPECT_TRUE(torch::equal(*all, torch::cat({of_rank(0), of_rank(1), of_rank(2)})));
        EXPECT_EQ(sync->Calls(), count < 100 ? 1 : 2);
      });
    }
  }
  // Beyond what float64 holds.
  RunRanks(2, true, [](ProcessGroup* group) {
    const int64_t large = (int64_t{1} << 53) + 1;
    EXPECT_EQ((*GatherRows(*MakeMeterSync(*group), torch::tensor({large})))[1].item<int64_t>(), large);
  });
  const absl::Status status = SameStatus([](ProcessGroup* group) {
    return GatherRows(*MakeMeterSync(*group), torch::ones({2, 2 + group->rank()})).status();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(
      SameStatus([](ProcessGroup* group) {
        return GatherRows(*MakeMeterSync(*group), group->rank() == 0 ? torch::ones({}) : torch::ones({1})).status();
      }).ok());
}

struct Counted {
  std::string name;
  Maker make;
  torch::Tensor input, target;
  int calls = 1;
};

std::vector<Counted> CountedCases() {
  const auto built = [](MetricsOptions options) {
    return [options](std::shared_ptr<MeterSync> sync) {
      MetricsOptions own = options;  // ranks are threads
      own.sync = std::move(sync);
      return BuildMetrics(own);
    };
  };
  const torch::Tensor scores = torch::rand({8}), labels = torch::randint(0, 2, {8});
  const torch::Tensor many = torch::rand({4000}), labels_of_many = torch::randint(0, 2, {4000});
  const torch::Tensor table = torch::rand({8, 200}).softmax(1), classes = torch::randint(0, 200, {8});
  const MetricsOptions stream{.type = "binary", .mode = MetricMode::kStream};
  return {{"small history", built({.type = "binary"}), scores, labels, 1},
          {"history", built({.type = "binary"}), many, labels_of_many, 2},
          {"small state", built({.type = "binary", .metrics = {metrics::BinaryF1()}}), many, labels_of_many, 1},
          {"200 classes", built({.type = "multiclass", .num_classes = 200, .metrics = {metrics::MulticlassF1(200)}}),
           table, classes, 2},
          {"moments", built({.type = "regression", .metrics = {metrics::R2Score(), metrics::Mse()}}), many,
           torch::rand({4000}), 1},
          {"stream", built(stream), many, labels_of_many, 1}};
}

TEST(MetricRanks, OneExchangeAReadOutTwoWhereItIsLarge) {
  for (const Counted& one : CountedCases()) {
    SCOPED_TRACE(one.name);
    RunRanks(2, true, [&](ProcessGroup* group) {
      auto sync = std::make_shared<CountingSync>(*group);
      auto metrics = *one.make(sync);
      if (group->rank() == 0) metrics->Update(one.input, one.target);
      ASSERT_TRUE(metrics->Average().ok());
      EXPECT_EQ(sync->Calls(), one.calls);
      ASSERT_TRUE(metrics->Average().ok());
      EXPECT_EQ(sync->Calls(), one.name == "200 classes" || one.name == "history" ? 1 : one.calls) << "nothing new";
      ASSERT_TRUE(metrics->Batch().ok());
      EXPECT_EQ(sync->Calls(), one.calls);
      ASSERT_TRUE(metrics->Samples(false, true).ok());
      EXPECT_EQ(sync->Calls(), 1);
      ASSERT_TRUE(metrics->Value().ok() && metrics->Text().ok());
      EXPECT_EQ(sync->Calls(), 0) << "of this rank alone";
    });
  }
}

TEST(MetricRanks, AllTasksShareOneExchange) {
  for (const int64_t count : {8, 4000}) {
    RunRanks(2, true, [&](ProcessGroup* group) {
      auto sync = std::make_shared<CountingSync>(*group);
      MultiTaskMetrics metrics = *MultiTaskMetrics::Create({.aggregate = Aggregate::kMicro});
      ASSERT_TRUE(metrics.Add("a", *BuildMetrics({.type = "binary", .sync = sync})).ok());
      ASSERT_TRUE(metrics.Add("b", *BuildMetrics({.type = "binary", .mode = MetricMode::kStream, .sync = sync})).ok());
      ASSERT_TRUE(metrics.Add("c", *BuildMetrics({.type = "regression", .sync = sync})).ok());
      const torch::Tensor scores = torch::rand({count}), labels = torch::randint(0, 2, {count});
      ASSERT_TRUE(
          metrics.UpdateTasks({{"a", {scores, labels}}, {"b", {scores, labels}}, {"c", {scores, scores + 1}}}).ok());
      ASSERT_TRUE(metrics.Average().ok());
      EXPECT_EQ(sync->Calls(), count == 8 ? 1 : 2);
      ASSERT_TRUE(metrics.Batch().ok());
      EXPECT_EQ(sync->Calls(), count == 8 ? 1 : 2);
    });
  }
}

TEST(MetricRanks, NoRankKeepsTheHistoryOfOthers) {
  RunRanks(2, true, [&](ProcessGroup* group) {
    auto sync = std::make_shared<CountingSync>(*group);
    auto metrics = *Global({metrics::BinaryAuroc()}, sync);
    const int64_t count = group->rank() == 0 ? 5000 : 3;
    metrics->Update(torch::rand({count}), torch::randint(0, 2, {count}));
    ASSERT_TRUE(metrics->Average().ok());
    // float32, int64 and two masks: no row is sent in a wider dtype.
    EXPECT_LT(sync->Bytes(), 5000 * (4 + 8 + 1 + 1) + 2 * kBlockBytes);
    const TensorMap state = *metrics->StateTensors();
    EXPECT_EQ(state.at("history.input").size(0), count);
    for (const auto& [key, tensor] : state) EXPECT_FALSE(key.starts_with("exchanged")) << key;
  });
}

// As over NCCL: what is exchanged lies on the device.
class DeviceSync : public CountingSync {
 public:
  using CountingSync::CountingSync;
  torch::Device device() const override { return ForeignDevice(); }
  absl::StatusOr<torch::Tensor> Gather(const torch::Tensor& bytes) override {
    EXPECT_EQ(bytes.device(), ForeignDevice());
    ASSIGN_OR_RETURN(const torch::Tensor all, CountingSync::Gather(bytes.cpu()));
    return all.to(ForeignDevice());
  }
};

TEST(MetricRanks, OnTheDeviceOfTheRanks) {
  ForeignDevice();
  for (const int64_t count : {6, 5000}) {
    const torch::Tensor scores = torch::rand({count}), labels = torch::randint(0, 2, {count});
    auto whole = *BuildMetrics({.type = "binary"});
    whole->Update(scores, labels);
    std::vector<MetricValues> ranks(3);
    RunRanks(3, true, [&](ProcessGroup* group) {
      MultiTaskMetrics metrics = *MultiTaskMetrics::Create();
      const auto sync = std::make_shared<DeviceSync>(*group);
      ASSERT_TRUE(metrics.Add("a", *BuildMetrics({.type = "binary", .sync = sync})).ok());
      AverageMeters meters(sync);
      meters["mean"];
      // Rank 0 keeps its tensors on the host, rank 1 on the device, rank 2 has none.
      for (const int64_t rank : {0, 1}) {
        if (group->rank() != rank) continue;
        const torch::Device device = rank == 0 ? torch::Device(torch::kCPU) : ForeignDevice();
        const auto part = [&](const torch::Tensor& all) { return all.chunk(2)[static_cast<size_t>(rank)].to(device); };
        ASSERT_TRUE(metrics.Update("a", part(scores), part(labels)).ok());
        meters.Update("mean", part(scores).mean(), count / 2);
      }
      const absl::StatusOr<MetricValues> found = metrics.Average();
      ASSERT_TRUE(found.ok()) << found.status();
      for (const auto& [name, value] : *found) {
        EXPECT_EQ(value.device(), ForeignDevice());
        ranks[static_cast<size_t>(group->rank())].emplace_back(name, value.cpu());
        EXPECT_EQ(value.item<float>(), FindValue(*whole->Average(), name.substr(2))->item<float>()) << name;
      }
      const absl::StatusOr<MetricValues> mean = meters.Average();
      ASSERT_TRUE(mean.ok()) << mean.status();
      EXPECT_NEAR((*mean)[0].second.item<double>(), scores.mean().item<double>(), 1e-6) << "means of float32";
    });
    ExpectSameOnAllRanks(ranks);
  }
}

}  // namespace
}  // namespace athanor

// All ranks hold the same weights: windows of which ranks count different samples, and what is said when it is not so.
#include "athanor/runner/step/replica_check.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

bool Hurt(int64_t index) {
  return index == 3 || index == 50;
}

// Some samples are damaged.
class HurtData : public Dataset {
 public:
  int64_t size() const override { return inner_->size(); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override {
    for (const int64_t index : indices) {
      if (Hurt(index)) return absl::DataLossError(absl::StrCat("sample ", index, " is damaged"));
    }
    return inner_->Get(indices);
  }

 protected:
  std::shared_ptr<Dataset> inner_ = TestData(96, 1);
};

// Leaves the same ones out by itself.
class SparseData : public HurtData {
 public:
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override {
    std::vector<int64_t> good;
    std::copy_if(indices.begin(), indices.end(), std::back_inserter(good), [](int64_t index) { return !Hurt(index); });
    return inner_->Get(good);
  }
};

// Says that it leaves none out.
class LyingData : public SparseData {
 public:
  bool may_leave_out() const override { return false; }
};

struct Division {
  int world, batch, accum;
  bool shared_memory;
};

RunSpec UnevenSpec(const Division& division, nlohmann::json changes) {
  changes["dataloader"] = {{"batch_size", division.batch}, {"on_damage", "skip"}};
  changes["accum_steps"] = division.accum;
  RunSpec spec;
  spec.config = TestConfig(changes);
  spec.world_size = division.world;
  spec.shared_memory = division.shared_memory;
  spec.dropout = 0;
  spec.with_norm = false;
  spec.train = std::make_shared<HurtData>();
  return spec;
}

void ExpectOneMean(const std::vector<RankRun>& whole, const std::vector<RankRun>& divided, double tolerance) {
  ASSERT_TRUE(whole[0].result.ok()) << whole[0].result.status();
  for (const RankRun& run : divided) {
    ASSERT_TRUE(run.result.ok()) << run.result.status();
    ExpectSameModel(run.model, divided[0].model);
    for (const auto& [name, tensor] : whole[0].model)
      EXPECT_TRUE(torch::allclose(tensor, run.model.at(name), tolerance, tolerance)) << name;
  }
}

class UnevenRanks : public ::testing::TestWithParam<Division> {};

TEST_P(UnevenRanks, AreOneMeanOverTheSamples) {
  const nlohmann::json sgd = {{"optim", {{"type", "sgd"}, {"lr", 0.1}, {"momentum", 0.9}}}, {"max_grad_norm", 0.5}};
  const auto whole = TrainAll(UnevenSpec({1, 16, 1, true}, sgd));
  RunSpec spec = UnevenSpec(GetParam(), sgd);
  ExpectOneMean(whole, TrainAll(spec), 1e-4);
  spec.train = std::make_shared<SparseData>();
  ExpectOneMean(whole, TrainAll(spec), 1e-4);
}

TEST_P(UnevenRanks, EvaluateOneWindowForLbfgs) {
  const nlohmann::json lbfgs = {
      {"steps", 4}, {"sched", nullptr}, {"optim", {{"type", "lbfgs"}, {"lr", 0.3}, {"max_iter", 3}}}};
  ExpectOneMean(TrainAll(UnevenSpec({1, 16, 1, true}, lbfgs)), TrainAll(UnevenSpec(GetParam(), lbfgs)), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Divisions, UnevenRanks,
                         ::testing::Values(Division{2, 8, 1, true}, Division{2, 4, 2, false}, Division{4, 2, 2, true},
                                           Division{4, 4, 1, false}));

TEST(Replicas, ADatasetKeepsItsPromiseToLeaveNothingOut) {
  RunSpec spec = UnevenSpec({1, 16, 1, true}, {});
  spec.config.dataloader.on_damage = "fail";
  spec.train = std::make_shared<LyingData>();
  EXPECT_THAT(std::string(TrainAll(spec)[0].result.status().message()), HasSubstr("may_leave_out()"));
}

TEST(Replicas, WeightsOnSomeRanksOnlyAreAMistakeOnAll) {
  RunSpec spec;
  spec.config = TestConfig({{"steps", 3}});
  spec.world_size = 2;
  spec.dropout = 0;
  spec.change_output = [](int rank, const Batch&, StepOutput* output) {
    if (rank == 1) output->weight = torch::tensor(2.0);
  };
  for (const RankRun& run : TrainAll(spec))
    EXPECT_THAT(std::string(run.result.status().message()), HasSubstr("weights on some ranks and none on others"));
}

std::vector<RankRun> TrainDrifting(int world_size, bool shared_memory, const nlohmann::json& comm) {
  RunSpec spec;
  spec.config = TestConfig({{"steps", 40}, {"comm", comm}});
  spec.world_size = world_size;
  spec.shared_memory = shared_memory;
  spec.dropout = 0;
  spec.with_norm = false;
  auto calls = std::make_shared<int>(0);
  spec.before_forward = [calls, world_size](int rank, TestNet* net) {
    if (rank != world_size - 1 || ++*calls != 6) return;
    const torch::NoGradGuard no_grad;
    net->first->bias[1] += 1e-3;
  };
  return TrainAll(spec);
}

TEST(Replicas, OnesThatDifferEndTheRunByDefault) {
  for (const int world : {2, 4}) {
    for (const bool shared_memory : {true, false}) {
      for (const RankRun& run : TrainDrifting(world, shared_memory, nlohmann::json::object())) {
        EXPECT_EQ(FailureKindOf(run.result.status()), FailureKind::kOurBug) << run.result.status();
        EXPECT_THAT(std::string(run.result.status().message()),
                    AllOf(HasSubstr("do not hold the same weights at step "),
                          HasSubstr(world == 2 ? "rank 1 differs from rank 0" : "rank 3 differs from ranks 0, 1, 2")));
      }
    }
  }
}

TEST(Replicas, AreComparedAsOftenAsAsked) {
  for (const RankRun& run : TrainDrifting(2, true, {{"replica_check_interval", 4}})) {
    EXPECT_THAT(std::string(run.result.status().message()),
                AllOf(HasSubstr("at step 8: rank 1 differs from rank 0"), HasSubstr("the same at step 4")));
  }
  for (const RankRun& run : TrainDrifting(2, true, {{"replica_check_interval", 0}}))
    EXPECT_TRUE(run.result.ok()) << run.result.status();
}

TEST(Replicas, ChecksTakeAThousandthOfTheTime) {
  EXPECT_EQ(RoundsBetweenChecks(1e-5, 1e-3), 10);
  EXPECT_EQ(RoundsBetweenChecks(1e-9, 1.0), 1);
  EXPECT_EQ(RoundsBetweenChecks(1.0, 1e-3), ReplicaCheck::kMaxInterval);
  EXPECT_EQ(RoundsBetweenChecks(1.0, 0), 1) << "nothing is known about the time of a round yet";
}

TEST(Replicas, TheOddOnesAreNamed) {
  EXPECT_EQ(DifferingRanks({5, 5, 6, 5}), "rank 2 differs from ranks 0, 1, 3");
  EXPECT_EQ(DifferingRanks({7, 8, 8, 8}), "rank 0 differs from ranks 1, 2, 3");
  EXPECT_EQ(DifferingRanks({7, 8}), "rank 1 differs from rank 0");
  EXPECT_EQ(DifferingRanks({1, 2, 3}), "ranks 1, 2 differ from rank 0");
}

}  // namespace
}  // namespace athanor

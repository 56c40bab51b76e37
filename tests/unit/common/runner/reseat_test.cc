// Ranks that change in the middle of a run: everything that knows them is seated anew, and nothing else changes.
#include <memory>

#include "athanor/metrics/metric_factory.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

constexpr int64_t kAt = 13;  // in the middle of a pass, of a read-out and between two checkpoints

class Reseating : public TorchRunner {
 public:
  using Before = std::function<absl::Status(Reseating*)>;
  Reseating(RunnerConfig config, TorchRunnerOptions options, Before before)
      : TorchRunner(std::move(config), std::move(options)), before_(std::move(before)) {}
  using TorchRunner::Reseat;

 protected:
  absl::StatusOr<StepResult> TrainUpdate() override {
    if (state().step == kAt) RETURN_IF_ERROR(before_(this));
    return TorchRunner::TrainUpdate();
  }

 private:
  const Before before_;
};

class ReseatTest : public testing::TestWithParam<bool> {  // whether ranks share memory
 protected:
  struct Rank {
    absl::StatusOr<RunResult> result = absl::UnknownError("not run");
    std::map<std::string, torch::Tensor> model;
    std::map<std::string, double> train_metrics;  // of the read-out that the change falls into
  };

  static TorchRunnerOptions Options(const std::shared_ptr<TestNet>& net, const Membership& members) {
    TorchRunnerOptions options;
    options.model = net;
    options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
    options.forward = [net](const Batch& batch) {
      const torch::Tensor logits = net->forward(batch.input);
      StepOutput output{torch::nn::functional::cross_entropy(logits, batch.target), {}};
      output.scores = logits;
      output.labels = batch.target;
      return output;
    };
    options.metrics = [](std::shared_ptr<MeterSync> sync) {
      return BuildMetrics({.type = "multiclass", .num_classes = 3, .scores = Scores::kLogits, .sync = std::move(sync)});
    };
    options.members = members;
    options.workspace_from_config = false;
    return options;
  }

  void Train(const RunnerConfig& config, const Membership& members, SharedLedger* ledger, const std::string& root,
             const std::vector<ResumeCandidate>& candidates, const Reseating::Before& before, Rank* out) {
    const auto net = std::make_shared<TestNet>(/*dropout=*/0.0);
    LedgerCommitter committer(ledger);
    TorchRunnerOptions options = Options(net, members);
    options.committer = &committer;
    options.checkpoint_root = root;
    options.resume_candidates = candidates;
    std::vector<ProgressReport> reports;
    RecordingHooks hooks(/*stop_at=*/-1, &reports);
    options.hooks = &hooks;
    auto runner = TorchRunner::Make<Reseating>(config, std::move(options), before);
    out->result = runner.ok() ? (*runner)->Train() : runner.status();
    for (const auto& item : net->named_parameters()) out->model[item.key()] = item.value().detach().clone();
    for (const auto& item : net->named_buffers()) out->model[item.key()] = item.value().clone();
    for (const ProgressReport& report : reports) {
      if (report.step != 15) continue;
      for (const auto& [name, value] : report.metrics) {
        if (name.starts_with("train.")) out->train_metrics[name] = value;
      }
    }
  }

  // The group of before is gone once the ranks are seated anew: whoever kept it would read freed memory.
  std::vector<Rank> TrainTwo(const RunnerConfig& config, SharedLedger* ledger,
                             const std::function<absl::Status(Reseating*, ProcessGroup* next)>& change) {
    std::vector<Rank> ranks(2);
    auto store = HostStore::Create({});
    EXPECT_TRUE(store.ok()) << store.status();
    RunRanks(2, GetParam(), [&](ProcessGroup* next) {
      ProcessGroupOptions options;
      options.rank = next->rank();
      options.world_size = 2;
      options.store_port = (*store)->port();
      options.prefix = "job/0";
      options.shared_memory = GetParam();
      if (options.rank == 0) options.hosted_store = store->get();
      auto joined = ProcessGroup::Create(options);
      ASSERT_TRUE(joined.ok()) << joined.status();
      std::unique_ptr<ProcessGroup> first = *std::move(joined);
      const auto before = [&](Reseating* runner) -> absl::Status {
        if (change == nullptr) return absl::OkStatus();
        RETURN_IF_ERROR(change(runner, next));
        first.reset();
        return absl::OkStatus();
      };
      Train(config, first.get(), ledger, folder_.path(), {}, before, &ranks[static_cast<size_t>(next->rank())]);
    });
    return ranks;
  }

  static RunnerConfig Config(const nlohmann::json& changes = nlohmann::json::object()) {
    nlohmann::json config = {{"accum_steps", 2}, {"max_grad_norm", 1.0}, {"ema", {{"enabled", true}}}};
    config["checkpoint"]["async_enabled"] = false;  // a writer that is busy leaves a save out
    config.merge_patch(changes);
    return TestConfig(config);
  }

  TestFolder folder_;
};

TEST_P(ReseatTest, ANewGroupOfTheSameRanksChangesNothing) {
  SharedLedger undisturbed(2), reseated(2);
  const auto expected = TrainTwo(Config(), &undisturbed, nullptr);
  const auto found =
      TrainTwo(Config(), &reseated, [](Reseating* runner, ProcessGroup* next) { return runner->Reseat(next); });
  for (size_t rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(expected[rank].result.ok()) << expected[rank].result.status();
    ASSERT_TRUE(found[rank].result.ok()) << found[rank].result.status();
    EXPECT_EQ(found[rank].result->step, 30);
    ExpectSameModel(expected[rank].model, found[rank].model);
    EXPECT_FALSE(expected[rank].train_metrics.empty());
    for (const auto& [name, value] : expected[rank].train_metrics) {
      if (name != "train.samples_per_second") EXPECT_EQ(found[rank].train_metrics.at(name), value) << name;
    }
    EXPECT_EQ(found[rank].result->metrics.at("val.loss"), expected[rank].result->metrics.at("val.loss"));
    EXPECT_EQ(found[rank].result->metrics.at("val.acc"), expected[rank].result->metrics.at("val.acc"));
  }
  EXPECT_EQ(reseated.committed(), undisturbed.committed());
}

TEST_P(ReseatTest, OneOfTwoRanksGoesOnAloneAsFromACheckpoint) {
  SharedLedger two(2), resumed(1);
  const RunnerConfig config = Config({{"checkpoint", {{"interval", kAt}}}});
  const auto left = TrainTwo(config, &two, [&](Reseating* runner, ProcessGroup* next) -> absl::Status {
    if (next->rank() == 1) return absl::CancelledError("this rank leaves");
    two.Expect(1);
    return runner->Reseat(Membership());
  });
  EXPECT_TRUE(absl::IsCancelled(left[1].result.status())) << left[1].result.status();
  ASSERT_TRUE(left[0].result.ok()) << left[0].result.status();
  Rank rank;
  Train(
      config, Membership(), &resumed, folder_.path(), {folder_.At(kAt)}, [](Reseating*) { return absl::OkStatus(); },
      &rank);
  ASSERT_TRUE(rank.result.ok()) << rank.result.status();
  EXPECT_EQ(left[0].result->step, 30);
  ExpectSameModel(rank.model, left[0].model);
  EXPECT_EQ(left[0].result->metrics.at("val.loss"), rank.result->metrics.at("val.loss"));
  EXPECT_THAT(two.committed(), testing::IsSupersetOf({kAt, 2 * kAt, int64_t{30}}));
}

INSTANTIATE_TEST_SUITE_P(SharedMemory, ReseatTest, testing::Bool());

}  // namespace
}  // namespace athanor

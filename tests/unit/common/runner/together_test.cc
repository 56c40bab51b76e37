// What one rank alone does and can fail: the others learn of it at once, and not at the timeout of their collective.
#include <chrono>
#include <fstream>

#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using json = nlohmann::json;

constexpr absl::Duration kTimeout = absl::Seconds(60);  // of the collectives
constexpr double kAtOnce = 30;                          // seconds, on a busy machine

// A runner whose state cannot be captured, or whose metrics cannot be read, on one rank.
class Failing : public TorchRunner {
 public:
  Failing(RunnerConfig config, TorchRunnerOptions options, bool capture, bool metrics)
      : TorchRunner(std::move(config), std::move(options)), capture_(capture), metrics_(metrics) {}

 protected:
  absl::StatusOr<TrainingState> CaptureState(bool model_only) override {
    absl::StatusOr<TrainingState> state = TorchRunner::CaptureState(model_only);
    return capture_ ? absl::InternalError("no memory for a copy") : std::move(state);
  }
  void ReadStepMetrics(std::map<std::string, double>* metrics) override {
    if (metrics_) throw std::runtime_error("metrics are broken");
    TorchRunner::ReadStepMetrics(metrics);
  }

 private:
  const bool capture_, metrics_;
};

class Together : public testing::TestWithParam<bool> {
 protected:
  using Body = std::function<absl::Status(int rank, RunnerConfig config, TorchRunnerOptions options)>;

  // What both ranks end with, soon.
  std::vector<absl::Status> Run(const json& changes, const Body& body) {
    std::vector<absl::Status> ends(2);
    const auto began = std::chrono::steady_clock::now();
    RunRanks(
        2, GetParam(),
        [&](ProcessGroup* group) {
          const int rank = group->rank();
          auto net = std::make_shared<TestNet>(/*dropout=*/0.0);
          TorchRunnerOptions options;
          options.model = net;
          options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
          options.forward = [net](const Batch& batch) {
            return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
          };
          options.members = group;
          options.handle_signals = false;
          json all = {{"checkpoint", {{"interval", 0}}}};
          all.merge_patch(changes);
          ends[rank] = body(rank, TestConfig(all), std::move(options));
        },
        kTimeout);
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(), kAtOnce);
    return ends;
  }
  static absl::Status Train(RunnerConfig config, TorchRunnerOptions options) {
    auto runner = TorchRunner::Create(std::move(config), std::move(options));
    return runner.ok() ? (*runner)->Train().status() : runner.status();
  }
  // Rank 1 has failed with `text`, and rank 0 knows.
  static void ExpectBoth(const std::vector<absl::Status>& ends, const std::string& text) {
    EXPECT_THAT(std::string(ends[1].message()), HasSubstr(text));
    EXPECT_THAT(std::string(ends[0].message()), testing::AllOf(HasSubstr("rank 1: "), HasSubstr(text)));
    EXPECT_EQ(FailureKindOf(ends[0]), FailureKindOf(ends[1]));
  }
  TestFolder folder_;
};

TEST_P(Together, OptionsAndDataOfOneRank) {
  ExpectBoth(Run(json::object(),
                 [](int rank, RunnerConfig config, TorchRunnerOptions options) {
                   if (rank == 1) options.datasets.erase("train");
                   return Train(std::move(config), std::move(options));
                 }),
             "no dataset 'train'");
  ExpectBoth(Run(json::object(),
                 [](int rank, RunnerConfig config, TorchRunnerOptions options) {
                   if (rank == 1) options.forward = nullptr;
                   return Train(std::move(config), std::move(options));
                 }),
             "no forward function");
  ExpectBoth(Run(json::object(),
                 [](int rank, RunnerConfig config, TorchRunnerOptions options) {
                   if (rank == 1) config.dataloader.timeout = -1;
                   return Train(std::move(config), std::move(options));
                 }),
             "timeout");
  ExpectBoth(Run(json::object(),
                 [](int rank, RunnerConfig config, TorchRunnerOptions options) {
                   if (rank == 1) {
                     options.metrics = [](std::shared_ptr<MeterSync>) -> absl::StatusOr<std::unique_ptr<MetricSet>> {
                       throw std::runtime_error("no metrics here");
                     };
                   }
                   return Train(std::move(config), std::move(options));
                 }),
             "no metrics here");
}

// Reading what training has measured is each rank's own, and comes before a vote of all.
TEST_P(Together, ALossThatOneRankCannotRead) {
  const auto ends = Run(json::object(), [](int rank, RunnerConfig config, TorchRunnerOptions options) {
    const auto forward = options.forward;
    options.forward = [rank, forward](const Batch& batch) {
      StepOutput output = forward(batch);
      output.metrics["odd"] = rank == 1 ? torch::empty({}, torch::kMeta) : torch::zeros({});
      return output;
    };
    return Train(std::move(config), std::move(options));
  });
  EXPECT_THAT(std::string(ends[1].message()), HasSubstr("reading the losses"));
  EXPECT_FALSE(ends[0].ok());
}

TEST_P(Together, TheRunsFolder) {
  const std::string in_the_way = folder_.path() + "/file";
  std::ofstream(in_the_way) << "in the way";
  const auto ends = Run({{"dir", in_the_way + "/run"}}, [](int, RunnerConfig config, TorchRunnerOptions options) {
    return Train(std::move(config), std::move(options));
  });
  EXPECT_THAT(std::string(ends[0].message()), HasSubstr(in_the_way));
  EXPECT_THAT(std::string(ends[1].message()), testing::AllOf(HasSubstr("rank 0: "), HasSubstr(in_the_way)));
  EXPECT_EQ(FailureKindOf(ends[1]), FailureKind::kInvalid);
  const std::string dir = folder_.path();
  for (const absl::Status& end : Run(json::object(), [dir](int rank, RunnerConfig config, TorchRunnerOptions options) {
         if (rank == 1) options.workspace = Workspace{.dir = dir, .checkpoint_dir = dir + "/checkpoints"};
         return Train(std::move(config), std::move(options));
       }))
    EXPECT_THAT(std::string(end.message()), HasSubstr("some ranks were given a run's folder"));
}

TEST_P(Together, WeightsAndStatesThatOneRankCannotRead) {
  for (const absl::Status& saved :
       Run({{"dir", folder_.path()}}, [](int, RunnerConfig config, TorchRunnerOptions options) -> absl::Status {
         ASSIGN_OR_RETURN(auto runner, TorchRunner::Create(std::move(config), std::move(options)));
         RETURN_IF_ERROR(runner->SaveCheckpoint({.force = true}).status());
         return runner->WaitForCheckpoints();
       }))
    ASSERT_TRUE(saved.ok()) << saved;
  ExpectBoth(Run(json::object(),
                 [this](int rank, RunnerConfig config, TorchRunnerOptions options) {
                   if (rank == 1) config.resume = folder_.path() + "/nothing";
                   return Train(std::move(config), std::move(options));
                 }),
             "nothing");
  ExpectBoth(Run(json::object(),
                 [this](int rank, RunnerConfig config, TorchRunnerOptions options) -> absl::Status {
                   ASSIGN_OR_RETURN(auto runner, TorchRunner::Create(std::move(config), std::move(options)));
                   return runner->LoadCheckpoint(folder_.path() + (rank == 1 ? "/nothing" : "/checkpoints/latest"));
                 }),
             "nothing");
  ExpectBoth(Run(json::object(),
                 [](int rank, RunnerConfig config, TorchRunnerOptions options) -> absl::Status {
                   ASSIGN_OR_RETURN(auto runner, TorchRunner::Create(std::move(config), std::move(options)));
                   ASSIGN_OR_RETURN(TrainingState state, runner->StateDict());
                   if (rank == 1) state.meta.erase("optimizer");
                   return runner->LoadStateDict(state);
                 }),
             "no 'optimizer'");
}

TEST_P(Together, ASaveThatOneRankCannotCapture) {
  ExpectBoth(Run({{"dir", folder_.path()}},
                 [](int rank, RunnerConfig config, TorchRunnerOptions options) -> absl::Status {
                   ASSIGN_OR_RETURN(auto runner, TorchRunner::Make<Failing>(std::move(config), std::move(options),
                                                                            rank == 1, false));
                   return runner->SaveCheckpoint({.force = true}).status();
                 }),
             "no memory for a copy");
}

TEST_P(Together, WhatEndsTheTrainingOfOneRank) {
  const auto expect_left = [](const std::vector<absl::Status>& ends, const std::string& text) {
    EXPECT_THAT(std::string(ends[1].message()), HasSubstr(text));
    EXPECT_EQ(FailureKindOf(ends[0]), FailureKind::kPeerLost) << ends[0];
  };
  expect_left(Run(json::object(),
                  [](int rank, RunnerConfig config, TorchRunnerOptions options) {
                    if (rank == 1) {
                      options.forward = [forward = options.forward, step = 0](const Batch& batch) mutable {
                        if (++step == 4) throw std::runtime_error("a bad step");
                        return forward(batch);
                      };
                    }
                    return Train(std::move(config), std::move(options));
                  }),
              "a bad step");
  expect_left(Run(json::object(),
                  [](int rank, RunnerConfig config, TorchRunnerOptions options) -> absl::Status {
                    ASSIGN_OR_RETURN(auto runner, TorchRunner::Make<Failing>(std::move(config), std::move(options),
                                                                             false, rank == 1));
                    return runner->Train().status();
                  }),
              "metrics are broken");
  struct Throwing : RunnerHooks {
    void OnProgress(const ProgressReport& progress) override {
      if (progress.step == 3) throw std::runtime_error("a bad hook");
    }
  };
  expect_left(Run(json::object(),
                  [](int rank, RunnerConfig config, TorchRunnerOptions options) {
                    Throwing hooks;
                    if (rank == 1) options.hooks = &hooks;
                    return Train(std::move(config), std::move(options));
                  }),
              "a bad hook");
}

INSTANTIATE_TEST_SUITE_P(Transports, Together, testing::Bool(),
                         [](const auto& info) { return info.param ? "Memory" : "Gloo"; });

}  // namespace
}  // namespace athanor

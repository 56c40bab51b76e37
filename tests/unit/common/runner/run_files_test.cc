// What a run puts on disk besides checkpoints: its files, and the journal that writes into them.
#include "athanor/runner/record/run_files.h"

#include <fstream>

#include "athanor/runner/record/run_journal.h"
#include "tests/unit/common/runner/part_fixture.h"

namespace athanor {
namespace {

using testing::HasSubstr;
using testing::SizeIs;
using json = nlohmann::json;

class RunFilesTest : public PartTest {
 protected:
  static std::string TextOf(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  json InFolder(const json& more = json::object()) const {
    json changes = {{"dir", folder_.path() + "/run"}};
    changes.merge_patch(more);
    return changes;
  }
  TestFolder folder_;
};

TEST_F(RunFilesTest, WithoutAFolderThereIsNothing) {
  RunFiles files(&Context({{"checkpoint", {{"interval", 0}}}}), {.workspace_from_config = false});
  ASSERT_EQ(files.Find(), absl::OkStatus());
  ASSERT_EQ(files.Open({"val"}, {"train"}), absl::OkStatus());
  EXPECT_FALSE(files.workspace().has_value());
  EXPECT_EQ(files.recorder(), nullptr);
  EXPECT_EQ(files.committer(), nullptr);
  files.Close("finished", "", ProgressReport());
  EXPECT_TRUE(files.Problems().empty());
}

TEST_F(RunFilesTest, AFolderBringsACommitterALogAndAnEnd) {
  RunContext& context = Context(InFolder());
  RunFiles files(&context, {});
  ASSERT_EQ(files.Find(), absl::OkStatus());
  ASSERT_EQ(files.Open({"val"}, {"train"}), absl::OkStatus());
  ASSERT_NE(files.recorder(), nullptr);
  EXPECT_NE(files.committer(), nullptr);
  EXPECT_THAT(files.checkpoint_root(), HasSubstr(folder_.path() + "/run"));
  context.notes.Tell(Note::kProblem, "a line of the run");
  files.Close("failed", "the disk was full", context.progress.report());
  const std::string log = TextOf(files.workspace()->log_file());
  EXPECT_THAT(log, HasSubstr("a line of the run"));
  EXPECT_THAT(log, HasSubstr("the disk was full"));
}

TEST_F(RunFilesTest, AFolderThatCannotBeIsAMistakeOrALineUnderAService) {
  std::ofstream(folder_.path() + "/run") << "a file where the folder should be";
  RunContext& context = Context(InFolder());
  RunFiles alone(&context, {});
  ASSERT_EQ(alone.Find(), absl::OkStatus());
  const absl::Status refused = alone.Open({"val"}, {"train"});
  EXPECT_FALSE(refused.ok());
  EXPECT_EQ(FailureKindOf(refused), FailureKind::kInvalid);

  SharedLedger ledger(1);
  LedgerCommitter committer(&ledger);
  RunFiles served(&context, {.workspace = alone.workspace(), .committer = &committer});
  ASSERT_EQ(served.Find(), absl::OkStatus());
  ASSERT_EQ(served.Open({"val"}, {"train"}), absl::OkStatus());
  EXPECT_EQ(served.committer(), &committer) << "the service's own";
  ASSERT_THAT(context.notes.problems(), SizeIs(1));
  EXPECT_THAT(context.notes.problems()[0], HasSubstr("no run files: "));
}

TEST_F(RunFilesTest, AllRanksHaveTheFolderOfTheMainProcess) {
  RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
    const std::string own = folder_.path() + "/" + std::to_string(group->rank());
    RunContext context(TestConfig({{"dir", own}}), group, torch::kCPU, nullptr);
    RunFiles files(&context, {});
    ASSERT_EQ(files.Find(), absl::OkStatus());
    EXPECT_EQ(files.workspace()->dir, folder_.path() + "/0");
    ASSERT_EQ(files.Open({}, {"train"}), absl::OkStatus());
    EXPECT_EQ(files.recorder() != nullptr, group->rank() == 0);
    EXPECT_NE(files.committer(), nullptr) << "every rank votes";
    files.Close("finished", "", context.progress.report());

    RunFiles uneven(&context, {.workspace_from_config = group->rank() == 0});
    EXPECT_THAT(std::string(uneven.Find().message()), HasSubstr("some ranks were given a run's folder, others none"));
  });
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/1"));
}

class RunJournalTest : public RunFilesTest {
 protected:
  class Measured : public FakeTrainee {
   public:
    void ReadStepMetrics(std::map<std::string, double>* metrics) override { (*metrics)["lr"] = 0.25; }
  };
  RunJournal& Make(const json& more = json::object()) {
    RunContext& context = Context(InFolder(more));
    files_ = std::make_unique<RunFiles>(&context, RunFilesOptions());
    EXPECT_EQ(files_->Find(), absl::OkStatus());
    EXPECT_EQ(files_->Open({"val"}, measures_.names()), absl::OkStatus());
    files_->recorder()->Begin(nullptr, 0, false);
    journal_ = std::make_unique<RunJournal>(&context, &trainee_, &measures_, files_.get());
    journal_->Start(/*total_updates=*/30);
    return *journal_;
  }
  json Rows() const { return files_->recorder()->results().ToJson(); }
  void Measure(double loss) { measures_.Of("train").Add({.loss = torch::tensor(loss)}, 4); }

  Measured trainee_;
  RunMeasures measures_{{"train"}};
  std::unique_ptr<RunFiles> files_;
  std::unique_ptr<RunJournal> journal_;
};

TEST_F(RunJournalTest, ReadsOutOnItsIntervalIntoTheReport) {
  RunJournal& journal = Make({{"log_interval", 5}});
  EXPECT_TRUE(journal.ReadOutAt(5) && journal.ReadOutAt(10));
  EXPECT_FALSE(journal.ReadOutAt(6));
  Measure(2);
  Measure(4);
  ASSERT_EQ(journal.ReadOut(TrainState{.step = 5}), absl::OkStatus());
  const ProgressReport& report = context_->progress.report();
  EXPECT_EQ(report.loss, 3);
  EXPECT_EQ(report.metrics.at("train.loss"), 3);
  EXPECT_EQ(report.metrics.at("lr"), 0.25);
  EXPECT_GT(report.memory_bytes, 0);
}

TEST_F(RunJournalTest, ARowHoldsWhatWasMeasuredSinceTheRowBefore) {
  RunJournal& journal = Make({{"log_interval", 5}});
  Measure(2);
  ASSERT_EQ(journal.AddRow(TrainState{.step = 5}, {{"val.loss", 0.5}}, /*evaluated=*/true, /*is_best=*/true),
            absl::OkStatus());
  Measure(6);
  ASSERT_EQ(journal.AddRow(TrainState{.step = 10}, {{"val.loss", 0.75}}, true, false), absl::OkStatus());
  const std::string rows = Rows().dump();
  EXPECT_THAT(rows, HasSubstr("0.75"));
  const json best = json::parse(TextOf(folder_.path() + "/run/best.json"));
  const json latest = json::parse(TextOf(folder_.path() + "/run/latest.json"));
  EXPECT_EQ(best.at("index"), 5);
  EXPECT_EQ(best.at("train").at("loss"), 2);
  EXPECT_EQ(latest.at("index"), 10);
  EXPECT_EQ(latest.at("train").at("loss"), 6) << "not the mean of both";
}

TEST_F(RunJournalTest, AStepHasOneRowUnlessItIsEvaluated) {
  RunJournal& journal = Make();
  Measure(2);
  const auto add = [&](int64_t step) {
    return journal.AddRow(TrainState{.step = step}, {}, /*evaluated=*/false, false);
  };
  ASSERT_EQ(add(5), absl::OkStatus());
  const json once = Rows();
  ASSERT_EQ(add(5), absl::OkStatus());
  EXPECT_EQ(Rows(), once);
  ASSERT_EQ(add(6), absl::OkStatus());
  EXPECT_NE(Rows(), once);
}

}  // namespace
}  // namespace athanor

// Votes, commits, aliases, retention, tags and deletion.
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

class Ledger : public testing::Test {
 protected:
  void SetUp() override {
    h.Register("w1", 4);
    h.Register("w2", 4);
  }
  JobId Train(const SubmitArgs& args) {
    const JobId id = h.Submit(args);
    h.StartTraining(id);
    return id;
  }
  std::vector<core::Step> Committed(const JobId& id) const {
    std::vector<core::Step> steps;
    for (const auto& [step, entry] : h.core.state().checkpoints.at(id)) {
      if (entry.state == CheckpointState::kCommitted) steps.push_back(step);
    }
    return steps;
  }
  CoreHarness h;
};

TEST_F(Ledger, RankZeroWaitsForAllVotes) {
  const JobId job = Train({.ranks = 3});
  const CallId zero = h.Vote(job, 0, 10);
  EXPECT_TRUE(h.All<RankReply>().empty()) << "held until all shards are durable";
  h.Vote(job, 1, 10);
  EXPECT_TRUE(h.rank_reply().status.ok()) << "the others are answered at once";
  h.Vote(job, 1, 10);  // a repetition counts once
  EXPECT_EQ(h.checkpoint(job, 10).state, CheckpointState::kCollecting);
  h.Vote(job, 2, 10);
  EXPECT_EQ(h.checkpoint(job, 10).state, CheckpointState::kSealed);
  const std::vector<RankReply> replies = h.All<RankReply>();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[1].call, zero);
  EXPECT_EQ(replies[1].shards.size(), 3u);
  EXPECT_TRUE(h.job(job).aliases.empty()) << "nothing points at it before its commit";
  h.Manifest(job, 10);
  EXPECT_TRUE(h.rank_reply().status.ok());
  EXPECT_THAT(h.job(job).aliases, ElementsAre(Pair("latest", 10)));
  h.Manifest(job, 10);
  EXPECT_TRUE(h.rank_reply().status.ok()) << "a repeated commit gets the same answer";
}

TEST_F(Ledger, WhatIsMeasuredAfterTheCommitIsTaken) {
  const JobId job = Train({.ranks = 1});
  h.Save(job, 10, /*best=*/true);
  h.Vote(job, 0, 20);
  ManifestCommitted bare{500, h.Seat(job, 0), h.Ref(job, 0), 20, 100};
  h.Step(bare);
  EXPECT_THAT(h.job(job).aliases, UnorderedElementsAre(Pair("latest", 20), Pair("best", 10)));
  bare.metrics["loss"] = 0.1;
  h.Step(bare);
  EXPECT_TRUE(h.rank_reply().status.ok());
  EXPECT_TRUE(h.checkpoint(job, 20).metrics.empty()) << "a commit that is repeated changes nothing";
  // The process died in its evaluation; the next generation evaluates what it was restored from.
  EvaluationReported evaluation{501, h.Seat(job, 0), h.Ref(job, 0), 20, {{"loss", 0.5}}, /*is_best=*/true};
  h.Fail(job, CauseKind::kSignal);
  h.Step(evaluation);
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kFailedPrecondition) << "of a generation that is over";
  h.StartTraining(job);
  evaluation.id = h.Ref(job, 0);
  evaluation.step = 15;
  h.Step(evaluation);
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kAborted) << "a step that nobody committed";
  evaluation.step = 20;
  h.Step(evaluation);
  EXPECT_TRUE(h.rank_reply().status.ok());
  EXPECT_THAT(h.checkpoint(job, 20).metrics, ElementsAre(Pair("loss", 0.5)));
  EXPECT_EQ(h.checkpoint(job, 20).generation, 1) << "its files are the first generation's";
  EXPECT_THAT(h.job(job).aliases, UnorderedElementsAre(Pair("latest", 20), Pair("best", 20)));
  EXPECT_THAT(h.Told(job, "CheckpointMeasured"), HasSubstr("the best so far"));
  const int64_t events = h.job(job).next_event;
  h.Step(evaluation);
  EXPECT_TRUE(h.rank_reply().status.ok());
  EXPECT_EQ(h.job(job).next_event, events) << "told again after its answer was lost";
}

TEST_F(Ledger, NoCommitWithoutVotes) {
  const JobId job = Train({.ranks = 2});
  h.Manifest(job, 10);
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(h.rank_reply().status.message()), HasSubstr("has no votes"));
  h.Vote(job, 1, 10);
  h.Manifest(job, 10);
  EXPECT_THAT(std::string(h.rank_reply().status.message()), HasSubstr("is Collecting"));
}

TEST_F(Ledger, OneRankThatGivesUpAbandonsTheStep) {
  const JobId job = Train({.ranks = 2});
  h.Vote(job, 0, 10);
  h.Step(CheckpointAbandoned{.call = 900, .worker = h.Seat(job, 1), .id = h.Ref(job, 1), .step = 10, .reason = "disk"});
  EXPECT_EQ(h.checkpoint(job, 10).state, CheckpointState::kAbandoned);
  EXPECT_EQ(h.All<RankReply>()[0].status.code(), absl::StatusCode::kAborted) << "rank 0 does not wait for ever";
  h.Vote(job, 1, 10);
  EXPECT_THAT(std::string(h.rank_reply().status.message()), HasSubstr("rank 1 gave up: disk"));
}

TEST_F(Ledger, TheEndOfAGenerationAbandonsWhatIsOpen) {
  const JobId job = Train({.ranks = 2});
  h.Save(job, 10);
  h.Vote(job, 1, 20);
  h.Fail(job, CauseKind::kSignal);
  EXPECT_EQ(h.checkpoint(job, 20).state, CheckpointState::kAbandoned);
  EXPECT_EQ(h.generation(job).number, 2);
  EXPECT_EQ(h.generation(job).resume_step, 10);
  h.StartTraining(job);
  h.Save(job, 20);  // the next generation writes the step anew
  EXPECT_EQ(h.checkpoint(job, 20).generation, 2);
}

TEST_F(Ledger, StaleGenerationsAreFenced) {
  const JobId job = Train({.ranks = 1});
  const RankRef old = h.Ref(job, 0);
  const WorkerId seat = h.Seat(job, 0);
  h.Save(job, 10);
  h.Fail(job, CauseKind::kSignal);
  h.StartTraining(job);
  h.Step(ShardCommitted{77, seat, old, 30, {0, "late", 1, 1}});
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kFailedPrecondition);
  h.Step(ManifestCommitted{78, seat, old, 30});
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h.All<Note>()[0].kind, Note::Kind::kFencedMessage);
  h.Vote(job, 0, 10);
  EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(Ledger, RetentionKeepsTheNewestAndWhatIsPointedAt) {
  const JobId job = Train({.keep = 2});
  h.Save(job, 10, /*best=*/true);
  h.Save(job, 20);
  EXPECT_TRUE(h.Verb(TagCheckpoint{.job = job.str(), .checkpoint = "20", .tag = "golden"}).status.ok());
  for (core::Step step = 30; step <= 60; step += 10) h.Save(job, step);
  EXPECT_THAT(Committed(job), ElementsAre(10, 20, 50, 60));
  EXPECT_EQ(h.checkpoint(job, 30).state, CheckpointState::kDeleting);
  const std::vector<DeleteFiles> deletions = h.All<DeleteFiles>();
  ASSERT_EQ(deletions.size(), 1u);
  EXPECT_EQ(deletions[0].step, 40);
  h.Step(FilesDeleted{WorkerId("w1"), job, 30, ""});
  EXPECT_FALSE(h.core.state().checkpoints.at(job).contains(30)) << "the record goes when the files are gone";
  h.Step(FilesDeleted{WorkerId("w1"), job, 40, "Permission denied"});
  EXPECT_THAT(h.checkpoint(job, 40).note, HasSubstr("Permission denied"));
  EXPECT_TRUE(h.Verb(UntagCheckpoint{.job = job.str(), .tag = "golden"}).status.ok());
  EXPECT_EQ(h.checkpoint(job, 20).state, CheckpointState::kDeleting) << "nothing holds it any longer";
}

TEST_F(Ledger, KeepZeroKeepsAll) {
  const JobId job = Train({.keep = 0});
  for (core::Step step = 1; step <= 8; ++step) h.Save(job, step);
  EXPECT_EQ(Committed(job).size(), 8u);
}

TEST_F(Ledger, ALiveGenerationsStartIsKept) {
  const JobId job = Train({.keep = 1});
  h.Save(job, 10);
  h.Fail(job, CauseKind::kSignal);
  h.StartTraining(job);
  for (core::Step step = 20; step <= 50; step += 10) h.Save(job, step);
  EXPECT_THAT(Committed(job), ElementsAre(10, 40, 50)) << "10: what it started from; 40: a fall-back for 50";
  h.Finish(job);
  EXPECT_THAT(Committed(job), ElementsAre(50));
}

TEST_F(Ledger, AChildsParentIsKeptUntilTheChildIsOver) {
  const JobId parent = Train({.name = "parent", .keep = 1});
  h.Save(parent, 10);
  const JobId child = h.Submit({.name = "child", .parent_job = "parent", .parent_checkpoint = "latest"});
  EXPECT_EQ(h.job(child).parent_step, 10);
  h.Save(parent, 20);
  h.Save(parent, 30);
  EXPECT_THAT(Committed(parent), ElementsAre(10, 20, 30));
  const Reply refused = h.Verb(DeleteCheckpoint{.job = parent.str(), .checkpoint = "10"});
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr(absl::StrCat("job ", child.str(), " starts from it")));
  h.StartTraining(child);
  h.Finish(child);
  EXPECT_THAT(Committed(parent), ElementsAre(20, 30)) << "kept for the child alone";
  h.Save(parent, 40);
  EXPECT_THAT(Committed(parent), ElementsAre(30, 40));
}

// A damaged step may be saved anew by the next generation; when that fails its files still are what a child asked for.
TEST_F(Ledger, AGivenUpStepOfAParentKeepsItsFiles) {
  const JobId parent = Train({.name = "parent"});
  h.Save(parent, 10);
  h.Save(parent, 20);
  const JobId child = h.Submit({.name = "child", .ranks = 64, .parent_job = "parent", .parent_checkpoint = "20"});
  h.Fail(parent, CauseKind::kSignal);
  h.StartTraining(parent);
  h.Step(CheckpointDamaged{5, h.Seat(parent, 0), h.Ref(parent, 0), 20, "CRC32C differs"});
  EXPECT_EQ(h.Verb(DeleteCheckpoint{.job = parent.str(), .checkpoint = "20"}).status.code(),
            absl::StatusCode::kFailedPrecondition);
  h.Step(CheckpointAbandoned{.worker = h.Seat(parent, 0), .id = h.Ref(parent, 0), .step = 20, .reason = "disk"});
  h.Vote(parent, 0, 20);
  h.Fail(parent, CauseKind::kNanLoss);
  EXPECT_EQ(h.job(parent).state, JobState::kFailed);
  EXPECT_EQ(h.checkpoint(parent, 20).state, CheckpointState::kAbandoned) << "not Deleting";
  EXPECT_TRUE(h.Verb(CancelJob{.job = child.str()}).status.ok());
  EXPECT_EQ(h.checkpoint(parent, 20).state, CheckpointState::kDeleting) << "nobody needs it any longer";
}

TEST_F(Ledger, DamageMovesTheAliasesBack) {
  const JobId job = Train({});
  h.Save(job, 10, /*best=*/true);
  h.Save(job, 20, /*best=*/true);
  EXPECT_THAT(h.job(job).aliases, UnorderedElementsAre(Pair("best", 20), Pair("latest", 20)));
  h.Step(CheckpointDamaged{5, h.Seat(job, 0), h.Ref(job, 0), 20, "rank-0: CRC32C differs"});
  EXPECT_EQ(h.checkpoint(job, 20).state, CheckpointState::kDamaged);
  EXPECT_THAT(h.job(job).aliases, UnorderedElementsAre(Pair("best", 10), Pair("latest", 10)));
  EXPECT_THAT(h.Told(job, "CheckpointDamaged"), HasSubstr("CRC32C differs"));
  h.Fail(job, CauseKind::kSignal);
  h.StartTraining(job);
  EXPECT_EQ(h.generation(job).resume_step, 10);
}

TEST_F(Ledger, TagsCompareAndSet) {
  const JobId job = Train({});
  h.Save(job, 10);
  h.Save(job, 20);
  auto tag = [&](const std::string& at, std::optional<core::Step> expected) {
    return h.Verb(TagCheckpoint{.job = job.str(), .checkpoint = at, .tag = "good", .expected = expected}).status;
  };
  EXPECT_TRUE(tag("10", -1).ok());
  EXPECT_EQ(tag("20", -1).code(), absl::StatusCode::kAborted) << "somebody was faster";
  EXPECT_THAT(std::string(tag("20", 20).message()),
              HasSubstr("points at step-000000000010, expected step-000000000020"));
  EXPECT_TRUE(tag("latest", 10).ok());
  EXPECT_EQ(h.job(job).aliases.at("good"), 20);
  EXPECT_EQ(h.Verb(UntagCheckpoint{.job = job.str(), .tag = "good", .expected = 10}).status.code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(h.Verb(UntagCheckpoint{.job = job.str(), .tag = "good", .expected = 20}).status.ok());
  EXPECT_EQ(h.Verb(UntagCheckpoint{.job = job.str(), .tag = "good"}).status.code(), absl::StatusCode::kNotFound);
}

TEST_F(Ledger, TheServicesOwnAliasesAreItsOwn) {
  const JobId job = Train({});
  h.Save(job, 10);
  for (const char* name : {"latest", "best"}) {
    EXPECT_EQ(h.Verb(TagCheckpoint{.job = job.str(), .checkpoint = "10", .tag = name}).status.code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(h.Verb(UntagCheckpoint{.job = job.str(), .tag = name}).status.code(), absl::StatusCode::kInvalidArgument);
  }
  h.Vote(job, 0, 20);
  EXPECT_EQ(h.Verb(TagCheckpoint{.job = job.str(), .checkpoint = "20", .tag = "early"}).status.code(),
            absl::StatusCode::kFailedPrecondition)
      << "only committed ones";
}

TEST_F(Ledger, DeletionIsTriedDryFirst) {
  const JobId job = Train({.keep = 0});
  for (core::Step step : {10, 20, 30}) h.Save(job, step);
  const Reply dry = h.Verb(DeleteCheckpoint{.job = job.str(), .checkpoint = "10", .dry_run = true});
  EXPECT_EQ(dry.message, "would delete step-000000000010, 100 bytes in 1 shards");
  EXPECT_EQ(h.checkpoint(job, 10).state, CheckpointState::kCommitted);
  EXPECT_EQ(h.Verb(DeleteCheckpoint{.job = job.str(), .checkpoint = "latest"}).status.code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(h.Verb(DeleteCheckpoint{.job = job.str(), .checkpoint = "10"}).status.ok());
  EXPECT_EQ(h.All<DeleteFiles>().size(), 1u);
  EXPECT_EQ(h.Verb(DeleteCheckpoint{.job = job.str(), .checkpoint = "10"}).status.code(),
            absl::StatusCode::kFailedPrecondition)
      << "it is Deleting";
  h.Register("w3", 1);
  EXPECT_THAT(h.All<DeleteFiles>(), testing::SizeIs(1)) << "whoever comes is asked again";
}

}  // namespace
}  // namespace athanor::core

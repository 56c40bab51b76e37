// Who belongs to the cluster and who does not: agents that come back, second agents of one name, records that are older
// than what happened, ends that nobody reports.
#include "server/core/worker_name.h"
#include "tests/unit/server/core/core_harness.h"

namespace athanor::core {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

CoreOptions ShortLease() {
  CoreOptions options;
  options.lease = absl::Seconds(10);
  return options;
}

ClusterState Stored(ClusterState state) {
  for (auto& [id, worker] : state.workers) {
    worker.session = worker.newest_session = 0;
    worker.used.clear();
  }
  for (auto& [id, job] : state.jobs) job.newest_generation = 0;
  return state;
}

WorkerRegistered Another(CoreHarness& h, const std::string& id, const std::string& home = "") {
  WorkerRegistered event = h.Registration(id, 2);
  event.instance = "process-2";
  event.home = home;
  return event;
}

TEST(WorkerNames, ASecondAgentOfALiveNameIsRefusedAndChangesNothing) {
  CoreHarness h(ShortLease());
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  const SessionId session = h.worker("w1").session;
  h.Step(Another(h, "w1"));
  ASSERT_EQ(h.All<RefuseWorker>().size(), 1u);
  EXPECT_THAT(h.All<RefuseWorker>()[0].reason,
              AllOf(HasSubstr("'w1' belongs to an agent on host"), HasSubstr("--name")));
  EXPECT_THAT(h.All<AcceptWorker>(), IsEmpty());
  EXPECT_EQ(h.worker("w1").session, session);
  EXPECT_EQ(h.generation(job).state, GenerationState::kTraining);
}

TEST(WorkerNames, ANameIsFreeOnceItsOldProcessIsProvenDead) {
  WorkerEntry known{.id = WorkerId("w1"), .instance = "process-1", .home = "boot/1/2", .host = "host"};
  WorkerRegistered newcomer;
  newcomer.instance = "process-2";
  const absl::Time now = absl::FromUnixSeconds(1000);
  known.session = 7;
  known.last_heartbeat = now - absl::Seconds(1);
  EXPECT_THAT(WhyNameTaken(known, newcomer, false, now), HasSubstr("last heard 1s ago"));
  newcomer.home = "boot/1/2";
  EXPECT_EQ(WhyNameTaken(known, newcomer, false, now), "") << "one process at a time holds the folder's lock";
  newcomer.home = "boot/1/3";
  known.session = 0;
  known.returns_by = now + absl::Seconds(2);
  EXPECT_THAT(WhyNameTaken(known, newcomer, false, now), HasSubstr("may come back for 2s"));
  EXPECT_EQ(WhyNameTaken(known, newcomer, false, now + absl::Seconds(2)), "");
  known.lease_until = now + absl::Seconds(8);
  EXPECT_THAT(WhyNameTaken(known, newcomer, true, now + absl::Seconds(2)), HasSubstr("may come back for 6s"));
  known.leaving = true;
  EXPECT_EQ(WhyNameTaken(known, newcomer, false, now), "");
  known.leaving = false;
  known.state = WorkerState::kLost;
  EXPECT_EQ(WhyNameTaken(known, newcomer, false, now), "");
  known.state = WorkerState::kReady;
  newcomer.instance = "process-1";
  EXPECT_EQ(WhyNameTaken(known, newcomer, false, now), "") << "the same process";
}

TEST(WorkerNames, AfterAStartOfTheCoordinatorTheKnownAgentComesFirst) {
  CoreHarness before(ShortLease());
  before.Register("w1", 2);
  const JobId job = before.Submit({.ranks = 2});
  before.StartTraining(job);
  CoreHarness after(ShortLease(), Stored(before.core.state()));
  after.Step(Another(after, "w1"));
  EXPECT_EQ(after.All<RefuseWorker>().size(), 1u) << "it may be faster than the agent that has the name";
  after.Register("w1", 2, "cpu", CoreHarness::Running(job, 1, 2));
  EXPECT_EQ(after.All<AcceptWorker>()[0].keep.size(), 2u);
  EXPECT_EQ(after.job(job).generation, 1);
}

TEST(WorkerNames, AnOlderStreamOfTheSameProcessThatComesLateIsStale) {
  CoreHarness h(ShortLease());
  const WorkerRegistered late = h.Registration("w1", 2);
  h.Register("w1", 2);
  const SessionId session = h.worker("w1").session;
  h.Step(late);
  EXPECT_EQ(h.All<RefuseWorker>().size(), 1u);
  EXPECT_EQ(h.worker("w1").session, session);
}

TEST(WorkerNames, ALostAgentIsTakenBackWhateverIncarnationItHolds) {
  CoreHarness h(ShortLease());
  h.Register("w1", 2);
  h.Pass(absl::Seconds(11));
  ASSERT_EQ(h.worker("w1").state, WorkerState::kLost);
  for (int i = 0; i < 2; ++i) {  // the first answer is lost with its stream
    WorkerRegistered again = h.Registration("w1", 2);
    again.incarnation = 1;
    h.Step(again);
    EXPECT_EQ(h.All<AcceptWorker>().size(), 1u);
  }
}

TEST(Contact, AWorkerThatDoesNotHearUsGetsNothing) {
  CoreHarness h(ShortLease());
  h.Step(h.Registration("w1", 2));
  const JobId job = h.Submit();
  EXPECT_EQ(h.job(job).state, JobState::kQueued) << "only its heartbeat proves that it heard the answer";
  for (int i = 0; i < 4; ++i) {
    h.Pass(absl::Seconds(3));
    if (h.worker("w1").state != WorkerState::kLost) h.Step(h.Registration("w1", 2));
  }
  EXPECT_EQ(h.worker("w1").state, WorkerState::kLost) << "registrations alone earn one lease";
  h.Register("w1", 2);
  EXPECT_EQ(h.job(job).state, JobState::kRunning);
}

TEST(Contact, AfterTheCoordinatorWasAwayWorkersHaveAFullLeaseToComeBack) {
  CoreHarness before(ShortLease());
  before.Register("w1", 2);
  const JobId job = before.Submit({.ranks = 2});
  before.StartTraining(job);
  CoreHarness after(ShortLease(), Stored(before.core.state()));
  after.Pass(absl::Seconds(9));
  const auto chain = after.core.Explain(job, after.now);
  EXPECT_THAT(chain, testing::Contains(AllOf(HasSubstr("no contact with w1 for 9s"), HasSubstr("lost in 1s"))));
  EXPECT_EQ(after.generation(job).state, GenerationState::kTraining);
  after.Register("w1", 2, "cpu", CoreHarness::Running(job, 1, 2));
  after.Pass(absl::Seconds(9));
  EXPECT_EQ(after.generation(job).state, GenerationState::kTraining);
  after.Pass(absl::Seconds(2));
  EXPECT_EQ(after.worker("w1").state, WorkerState::kLost);
  EXPECT_EQ(after.job(job).last_cause->kind, CauseKind::kNodeLost);
}

TEST(Contact, RanksThatAreNotHeardAreNotTakenForHung) {
  CoreOptions options;
  options.lease = absl::Seconds(60);
  CoreHarness h(options);
  h.Register("w1", 1);
  TimeoutsSpec timeouts;
  timeouts.hang = timeouts.startup = absl::Seconds(5);
  const JobId job = h.Submit({.timeouts = timeouts});
  h.StartTraining(job);
  h.Progress(job, 0, 1);
  h.Step(SessionLost{h.worker("w1").session, WorkerId("w1")});
  h.Pass(absl::Seconds(25));
  EXPECT_EQ(h.generation(job).state, GenerationState::kTraining);
  h.Register("w1", 1, "cpu", CoreHarness::Running(job, 1, 1));
  h.Pass(absl::Seconds(29));  // heard, and at the same step as before
  EXPECT_EQ(h.job(job).last_cause.has_value() || h.generation(job).cause.has_value(), true);
}

TEST(Contact, ALostNodeIsTheCauseOfWhatItsPeersReportedFirst) {
  CoreHarness h(ShortLease());
  h.Register("w1", 1);
  h.Register("w2", 1);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  const WorkerId lost = h.Seat(job, 0), other = h.Seat(job, 1);
  h.Exit(job, 1, h.Cause(CauseKind::kPeerLost));
  for (int i = 0; i < 11; ++i) {
    h.Pass(absl::Seconds(1));
    h.Beat(other.str());
  }
  EXPECT_EQ(h.worker(lost.str()).state, WorkerState::kLost);
  EXPECT_EQ(h.job(job).restarts_by_cause.at(CauseKind::kNodeLost), 1);
}

// A copy of the store from generation 1 comes back; agents have seen generation 4.
class Restored : public testing::Test {
 protected:
  Restored() {
    old_.Register("w1", 2);
    job_ = old_.Submit({.ranks = 2});
    old_.StartTraining(job_);
  }
  CoreHarness old_{ShortLease()};
  JobId job_;
};

TEST_F(Restored, RanksThatNoAgentHasAreNoticedAndNumbersAreNotUsedAgain) {
  CoreHarness h(ShortLease(), Stored(old_.core.state()));
  h.Register("w1", 2, "cpu", CoreHarness::Running(job_, 4, 2));
  EXPECT_THAT(h.All<AcceptWorker>()[0].keep, IsEmpty());
  EXPECT_THAT(h.Told(job_, "OldRankEnded"), HasSubstr("its generation 4 is unknown here: an older copy"));
  EXPECT_EQ(h.core.state().generations.at(job_).at(1).state, GenerationState::kFailed);
  EXPECT_EQ(h.job(job_).last_cause->kind, CauseKind::kNodeLost);
  EXPECT_THAT(h.job(job_).last_cause->detail, HasSubstr("neither runs it nor reports its end"));
  EXPECT_EQ(h.job(job_).generation, 5);
  EXPECT_EQ(h.job(job_).state, JobState::kRunning);
}

TEST_F(Restored, AnEndThatIsStillToBeReportedIsWaitedFor) {
  CoreHarness h(ShortLease(), Stored(old_.core.state()));
  RankExited first{0, WorkerId("w1"), {job_, 1, 0}, CoreHarness::Cause(CauseKind::kSignal, "kill -9"), false};
  RankExited second{0, WorkerId("w1"), {job_, 1, 1}, CoreHarness::Cause(CauseKind::kPeerLost), false};
  h.Register("w1", 2, "cpu", {}, {first, second});
  EXPECT_EQ(h.job(job_).last_cause->detail, "kill -9");
}

TEST_F(Restored, AnOldNumberThatAnAgentRefusesCostsNothing) {
  CoreHarness h(ShortLease(), Stored(old_.core.state()));
  h.Register("w1", 2);
  ASSERT_EQ(h.job(job_).generation, 2);
  for (Rank rank = 0; rank < 2; ++rank) {
    RankExited refused{0, WorkerId("w1"), h.Ref(job_, rank), CoreHarness::Cause(CauseKind::kPreempted, "old records")};
    refused.id.generation = 2;
    refused.newest_generation = 4;
    h.Step(refused);
  }
  EXPECT_EQ(h.job(job_).generation, 5);
  EXPECT_EQ(h.job(job_).restarts_by_cause.count(CauseKind::kLaunchFailed), 0u);
}

TEST(StrictFencing, NothingStartsBeforeRanksThatAnOlderCopyDoesNotKnowHaveEnded) {
  CoreHarness old(ShortLease());
  const JobId strict = old.Submit({.fencing = Fencing::kStrict}), other = old.Submit();
  ClusterState stored = Stored(old.core.state());
  stored.jobs.at(strict).created_at -= absl::Seconds(60);
  CoreHarness h(ShortLease(), std::move(stored));
  h.Register("w1", 4);
  EXPECT_EQ(h.job(strict).state, JobState::kQueued);
  EXPECT_THAT(h.job(strict).reason, HasSubstr("fencing: strict: waits a lease"));
  EXPECT_EQ(h.job(other).state, JobState::kRunning);
  EXPECT_EQ(h.job(h.Submit({.name = "new", .fencing = Fencing::kStrict, .key = "later"})).state, JobState::kRunning);
  for (int i = 0; i < 10; ++i) {
    h.Pass(absl::Seconds(1));
    h.Beat("w1");
  }
  EXPECT_EQ(h.job(strict).state, JobState::kRunning);
}

TEST_F(Restored, AJobThatWasBeingCancelledEnds) {
  old_.Verb(CancelJob{.job = job_.str()});
  ASSERT_EQ(old_.job(job_).state, JobState::kCancelling);
  CoreHarness h(ShortLease(), Stored(old_.core.state()));
  h.Register("w1", 2);
  EXPECT_EQ(h.job(job_).state, JobState::kCancelled);
  EXPECT_THAT(h.worker("w1").used, IsEmpty());
}

TEST_F(Restored, RecordsThatAreMissingKeepNoJobForEver) {
  ClusterState torn = Stored(old_.core.state());
  torn.generations.clear();
  CoreHarness h(ShortLease(), std::move(torn));
  EXPECT_THAT(h.Told(job_, "RecordRepaired"), HasSubstr("without a generation that runs; is Queued"));
  EXPECT_EQ(h.generation(job_).number, 2) << "it is placed again";
  ClusterState gone = Stored(old_.core.state());
  gone.workers.clear();
  CoreHarness without(ShortLease(), std::move(gone));
  without.Pass(absl::Seconds(11));  // an agent whose record is missing has a lease to come back
  EXPECT_EQ(without.job(job_).last_cause->kind, CauseKind::kNodeLost);
  EXPECT_EQ(without.job(job_).state, JobState::kQueued);
}

TEST(Stopping, RanksWhoseEndNobodyReportsAreGivenUp) {
  CoreOptions options;
  options.lease = absl::Seconds(10);
  options.stop_limit = absl::Seconds(60);
  CoreHarness h(options);
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  h.Verb(CancelJob{.job = job.str()});
  int asked = 0;
  for (int i = 0; i < 70 && h.job(job).state == JobState::kCancelling; ++i) {
    if (i == 30) {
      EXPECT_THAT(h.core.Explain(job, h.now),
                  testing::Contains(AllOf(HasSubstr("waits for the end of rank 0 on w1, rank 1 on w1"),
                                          HasSubstr("given up in 30s"))));
    }
    h.Beat("w1");
    h.Pass(absl::Seconds(1));
    asked += static_cast<int>(h.All<StopTrainer>().size());
  }
  EXPECT_EQ(h.job(job).state, JobState::kCancelled);
  EXPECT_GE(asked, 10);
  EXPECT_THAT(h.Told(job, "RankGivenUp"), HasSubstr("w1 was told to end it"));
  EXPECT_THAT(h.worker("w1").used, IsEmpty());
}

TEST(Finish, BeforeAllHaveJoinedIsNoEndOfTheJob) {
  CoreHarness h;
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  for (Rank rank = 0; rank < 2; ++rank) h.Launch(job, rank);
  for (Rank rank = 0; rank < 2; ++rank) {
    h.Step(RankFinished{static_cast<CallId>(100 + rank), h.Seat(job, rank), h.Ref(job, rank), {}});
    EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kInvalidArgument);
  }
  const RankRef first = h.Ref(job, 0), second = h.Ref(job, 1);
  h.Step(RankExited{0, WorkerId("w1"), first, std::nullopt, /*finished=*/true});
  h.Step(RankExited{0, WorkerId("w1"), second, std::nullopt, /*finished=*/true});
  EXPECT_EQ(h.core.state().generations.at(job).at(1).state, GenerationState::kFailed);
  EXPECT_EQ(h.job(job).last_cause->kind, CauseKind::kUserCode);
  // The same after a cancel: it is cancelled, not finished.
  CoreHarness cancelled;
  cancelled.Register("w1", 1);
  const JobId other = cancelled.Submit();
  cancelled.Launch(other, 0);
  cancelled.Verb(CancelJob{.job = other.str()});
  cancelled.Exit(other, 0, std::nullopt, /*finished=*/true);
  EXPECT_EQ(cancelled.job(other).state, JobState::kCancelled);
}

// Whatever an old generation still says after it was replaced changes nothing.
TEST(Fencing, VotesManifestsAndReportsOfAReplacedGenerationAreRefused) {
  CoreHarness h(ShortLease());
  h.Register("w1", 2);
  const JobId job = h.Submit({.ranks = 2});
  h.StartTraining(job);
  h.Pass(absl::Seconds(11));
  h.Register("w2", 2);
  h.StartTraining(job);
  ASSERT_EQ(h.job(job).generation, 2);
  const RankRef old{job, 1, 0};
  const WorkerId w1("w1");
  RankProgress far;
  far.step = 1000;
  const std::vector<Event> calls = {RankJoined{91, w1, old, "x:1"},
                                    ShardCommitted{92, w1, old, 20, {0, "rank-0", 100, 7}},
                                    ManifestCommitted{93, w1, old, 20, 100, {}, true, 0.1},
                                    EvaluationReported{97, w1, old, 20, {{"loss", 1}}, true},
                                    CheckpointAbandoned{94, w1, old, 20, "no space"},
                                    CheckpointDamaged{95, w1, old, 20, "crc32c"},
                                    RankFinished{96, w1, old, far}};
  for (const Event& call : calls) {
    h.Step(call);
    EXPECT_EQ(h.rank_reply().status.code(), absl::StatusCode::kFailedPrecondition);
  }
  h.Step(RankExited{0, w1, old, std::nullopt, /*finished=*/true});
  EXPECT_EQ(h.generation(job).state, GenerationState::kTraining);
  EXPECT_EQ(h.core.state().checkpoints.count(job), 0u);
  h.Register("w1", 2, "cpu", CoreHarness::Running(job, 1, 2));
  EXPECT_THAT(h.All<AcceptWorker>()[0].keep, IsEmpty());
  EXPECT_THAT(h.Told(job, "OldRankEnded"), HasSubstr("its generation 1 was replaced"));
}

TEST(Fencing, TheLeasesEndTellsTheAgentThatItsRanksWereReplaced) {
  CoreHarness h(ShortLease());
  h.Register("w1", 2);
  std::vector<RefuseWorker> refused;
  for (int i = 0; i < 11; ++i) {
    h.Pass(absl::Seconds(1));
    for (const RefuseWorker& one : h.All<RefuseWorker>()) refused.push_back(one);
  }
  ASSERT_FALSE(refused.empty());
  EXPECT_TRUE(refused[0].lease_over);
}

}  // namespace
}  // namespace athanor::core

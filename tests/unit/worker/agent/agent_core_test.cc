// What an agent does when it loses the coordinator, and when the coordinator has forgotten what it knew.
#include "worker/agent/agent_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

namespace athanor::agent {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

const RankKey kRank{"job-1", 3, 0};

class AgentHarness {
 public:
  AgentHarness() : core_({.name = "w1", .instance = "p1", .slots = 4, .home = "boot/1/2"}) {}

  absl::Time now = absl::FromUnixSeconds(1000);
  std::vector<Effect> last;

  AgentCore& core() { return core_; }
  void Connect(const std::vector<RankKey>& keep = {}) {
    last = core_.OnSessionOpened(now);
    v1::CoordinatorMessage message;
    v1::Registered& registered = *message.mutable_registered();
    registered.set_incarnation(1);
    registered.mutable_lease()->set_seconds(8);
    registered.mutable_heartbeat_interval()->set_seconds(1);
    for (const RankKey& key : keep) *registered.add_keep() = IdOf(key);
    Hear(message);
  }
  void Hear(const v1::CoordinatorMessage& message) { last = core_.OnMessage(message, now); }
  void Launch(const RankKey& key, const std::string& fencing = "") {
    v1::CoordinatorMessage message;
    *message.mutable_launch()->mutable_id() = IdOf(key);
    message.mutable_launch()->add_slots(key.rank);
    message.mutable_launch()->mutable_spec()->set_fencing(fencing);
    Hear(message);
  }
  void Run(const RankKey& key, const std::string& fencing = "") {
    Launch(key, fencing);
    ASSERT_EQ(All<LaunchProcess>().size(), 1u);
    last = core_.OnProcessStarted(key, 100, now);
  }
  void Stop(const RankKey& key) {
    v1::CoordinatorMessage message;
    *message.mutable_stop()->mutable_id() = IdOf(key);
    message.mutable_stop()->set_mode(v1::KILL);
    Hear(message);
  }
  void Refuse(bool lease_over) {
    v1::CoordinatorMessage message;
    message.mutable_refused()->set_reason("duplicate");
    message.mutable_refused()->set_lease_over(lease_over);
    Hear(message);
  }
  void AcknowledgeAll() {
    v1::CoordinatorMessage message;
    message.mutable_ack()->set_sequence(1 << 20);
    Hear(message);
  }
  void Pass(absl::Duration duration) {
    const absl::Time end = now + duration;
    last.clear();
    while (core_.NextDeadline() <= end) {
      now = std::max(now, core_.NextDeadline());
      for (Effect& effect : core_.OnTick(now)) last.push_back(std::move(effect));
    }
    now = end;
  }
  template <typename T>
  std::vector<T> All() const {
    std::vector<T> found;
    for (const Effect& effect : last) {
      if (const T* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  std::vector<v1::RankExited> Exits() const {
    std::vector<v1::RankExited> exits;
    for (const SendMessage& sent : All<SendMessage>()) {
      if (sent.message.has_exited()) exits.push_back(sent.message.exited());
    }
    return exits;
  }

 private:
  AgentCore core_;
};

v1::FailureCause Killed() {
  v1::FailureCause cause;
  cause.set_kind(v1::SIGNAL);
  cause.set_signal(SIGKILL);
  return cause;
}

TEST(LostCoordinator, RanksTrainOnAndWhatHappenedIsHandedOver) {
  AgentHarness h;
  h.Connect();
  h.Run(kRank);
  const RankKey other{"job-1", 3, 1};
  h.Run(other);
  h.Pass(absl::Seconds(80));  // ten leases
  EXPECT_THAT(h.All<KillProcess>(), IsEmpty());
  EXPECT_EQ(h.All<CloseSession>().size(), 1u) << "what comes next must be the answer to a registration";
  EXPECT_EQ(h.core().lease_expiries(), 1);
  h.core().OnSessionClosed(h.now);
  h.core().OnProcessExited(other, std::nullopt, h.now);
  h.Connect({kRank});
  EXPECT_THAT(h.All<KillProcess>(), IsEmpty());
  ASSERT_EQ(h.Exits().size(), 1u);
  EXPECT_EQ(h.Exits()[0].id().rank(), 1);
}

TEST(LostCoordinator, StrictFencingEndsARankWithTheLease) {
  AgentHarness h;
  h.Connect();
  h.Run(kRank, "strict");
  h.Run({"job-2", 1, 1});
  h.Pass(absl::Seconds(9));
  ASSERT_EQ(h.All<KillProcess>().size(), 1u);
  EXPECT_EQ(h.All<KillProcess>()[0].key, kRank);
  h.core().OnProcessExited(kRank, Killed(), h.now);
  h.core().OnSessionClosed(h.now);
  h.Connect({{"job-2", 1, 1}});
  ASSERT_EQ(h.Exits().size(), 1u);
  EXPECT_EQ(h.Exits()[0].cause().kind(), v1::NODE_LOST);
  EXPECT_THAT(h.Exits()[0].cause().detail(), HasSubstr("fencing: strict"));
}

TEST(LostCoordinator, RanksEndWhenTheyWereReplaced) {
  AgentHarness h;
  h.Connect();
  h.Run(kRank);
  h.Refuse(/*lease_over=*/false);
  EXPECT_THAT(h.All<KillProcess>(), IsEmpty()) << "a refusal alone proves nothing";
  h.core().OnSessionClosed(h.now);
  h.Connect({kRank});
  h.Refuse(/*lease_over=*/true);
  EXPECT_EQ(h.All<KillProcess>().size(), 1u);
  h.core().OnSessionClosed(h.now);
  AgentHarness other;
  other.Connect();
  other.Run(kRank);
  other.core().OnSessionClosed(other.now);
  other.Connect();  // not kept
  EXPECT_EQ(other.All<KillProcess>().size(), 1u);
}

TEST(OldRecords, AStopOfARankThatHasEndedIsAnsweredAgain) {
  AgentHarness h;
  h.Connect();
  h.Run(kRank);
  h.last = h.core().OnProcessExited(kRank, Killed(), h.now);
  EXPECT_EQ(h.Exits().size(), 1u);
  h.Stop(kRank);
  EXPECT_THAT(h.Exits(), IsEmpty()) << "the report is under way";
  h.AcknowledgeAll();
  h.Stop(kRank);
  ASSERT_EQ(h.Exits().size(), 1u);
  EXPECT_THAT(h.Exits()[0].cause().detail(), HasSubstr("has ended before"));
  h.AcknowledgeAll();
  const RankKey never{"job-9", 1, 0};
  h.Stop(never);
  EXPECT_EQ(h.Exits().size(), 1u);
  h.Launch(never);
  EXPECT_THAT(h.All<LaunchProcess>(), IsEmpty());
}

TEST(OldRecords, ALaunchOfANumberThatHasRunIsRefusedWithTheNewest) {
  AgentHarness h;
  h.Connect();
  h.Run(kRank);
  h.Launch(kRank);
  EXPECT_THAT(h.last, IsEmpty()) << "a repetition";
  h.last = h.core().OnProcessExited(kRank, Killed(), h.now);
  h.AcknowledgeAll();
  for (const RankKey& old : {kRank, RankKey{"job-1", 2, 0}}) {
    h.Launch(old);
    EXPECT_THAT(h.All<LaunchProcess>(), IsEmpty());
    ASSERT_EQ(h.Exits().size(), 1u);
    EXPECT_EQ(h.Exits()[0].newest_generation(), 3);
    EXPECT_EQ(h.Exits()[0].cause().kind(), v1::PREEMPTED);
    h.AcknowledgeAll();
  }
  h.core().SawGeneration("job-1", 7);
  h.Launch({"job-1", 4, 0});
  ASSERT_EQ(h.Exits().size(), 1u);
  EXPECT_EQ(h.Exits()[0].newest_generation(), 7);
  h.Launch({"job-1", 8, 0});
  EXPECT_EQ(h.All<LaunchProcess>().size(), 1u);
}

TEST(Lease, ABeatOfAnotherThreadExtendsIt) {
  AgentHarness h;
  h.Connect();
  h.Run(kRank, "strict");
  for (int i = 0; i < 5; ++i) {
    h.Pass(absl::Seconds(5));
    EXPECT_THAT(h.All<KillProcess>(), IsEmpty());
    h.core().OnLeaseExtended(h.now);
  }
  h.Pass(absl::Seconds(9));
  EXPECT_EQ(h.All<KillProcess>().size(), 1u);
  h.core().OnLeaseExtended(h.now);
  EXPECT_EQ(h.core().lease_until(), absl::InfiniteFuture()) << "a lease that has ended comes back by a registration";
}

TEST(Registration, NamesTheWorkFolder) {
  AgentHarness h;
  h.last = h.core().OnSessionOpened(h.now);
  ASSERT_EQ(h.All<SendMessage>().size(), 1u);
  EXPECT_EQ(h.All<SendMessage>()[0].message.register_().home(), "boot/1/2");
}

}  // namespace
}  // namespace athanor::agent

// What a rank says is cut to what the protocol allows, and the coordinator can read what is left.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"
#include "worker/agent/agent_core.h"

namespace athanor::agent {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

AgentCore RunningAgent(const RankKey& key) {
  AgentCore core({.name = "w1", .instance = "i", .slots = 1});
  core.OnSessionOpened(kNow);
  v1::CoordinatorMessage registered;
  registered.mutable_registered()->mutable_lease()->set_seconds(10);
  core.OnMessage(registered, kNow);
  v1::CoordinatorMessage launch;
  *launch.mutable_launch()->mutable_id() = IdOf(key);
  launch.mutable_launch()->add_slots(0);
  core.OnMessage(launch, kNow);
  core.OnProcessStarted(key, 100, kNow);
  return core;
}

TEST(ReportText, IsCutBetweenCharacters) {
  const RankKey key{"job-1", 1, 0};
  AgentCore core = RunningAgent(key);
  v1::RankProgress progress;
  progress.set_phase("a" + std::string(200, 'x').replace(60, 6, "日本"));
  progress.set_checkpoint_error("x");
  while (progress.checkpoint_error().size() < 3000) progress.mutable_checkpoint_error()->append("ß");
  core.OnRankReport(key, progress, kNow);
  int reports = 0;
  for (const Effect& effect : core.OnTick(kNow + absl::Seconds(2))) {
    const auto* sent = std::get_if<SendMessage>(&effect);
    if (sent == nullptr || !sent->message.has_heartbeat()) continue;
    v1::AgentMessage read;
    ASSERT_TRUE(read.ParseFromString(sent->message.SerializeAsString())) << "the coordinator drops the session else";
    for (const v1::RankReport& report : read.heartbeat().reports()) {
      ++reports;
      EXPECT_EQ(report.progress().phase(), CutUtf8(progress.phase(), 64));
      EXPECT_EQ(report.progress().checkpoint_error(), CutUtf8(progress.checkpoint_error(), 1024));
      EXPECT_EQ(report.progress().checkpoint_error().size(), 1023u) << "the 1024th byte is half a character";
    }
  }
  EXPECT_EQ(reports, 1);
}

}  // namespace
}  // namespace athanor::agent

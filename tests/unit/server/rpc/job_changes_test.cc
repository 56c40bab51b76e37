#include "server/rpc/job_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "athanor/base/json_text.h"
#include "athanor/v1/job.pb.h"
#include "server/rpc/request_validation.h"

namespace athanor {
namespace {

using testing::HasSubstr;

core::JobSpec Divided() {
  v1::JobSpec spec;
  spec.set_name("digits");
  spec.mutable_task()->set_name("digits_mlp");
  spec.mutable_resources()->set_ranks(2);
  (*spec.mutable_env())["TOKEN"] = "hunter2";
  spec.set_runner_json(R"({"steps": 40, "optim": {"type": "adamw", "lr": 0.1}, "stack": "parallel",
                           "parallel": {"axes": {"shard": 2}}, "fsdp": {"shard": "parameters"}})");
  absl::StatusOr<core::JobSpec> taken = TakeJobSpec(spec);
  EXPECT_TRUE(taken.ok()) << taken.status();
  return *std::move(taken);
}

absl::StatusOr<core::JobSpec> Changed(std::initializer_list<const char*> set, bool from_scratch = false) {
  Assignments assignments;
  for (const char* one : set) assignments.Add(one);
  if (absl::Status status = CheckChanges(assignments); !status.ok()) return status;
  return ChangeSpec(Divided(), assignments, from_scratch);
}

v1::JobSpec Payload(const core::JobSpec& spec) {
  v1::JobSpec payload;
  EXPECT_TRUE(payload.ParseFromString(spec.payload));
  return payload;
}

nlohmann::json Runner(const core::JobSpec& spec) {
  return ParseJsonText(Payload(spec).runner_json());
}

TEST(JobChanges, RanksFollowTheMesh) {
  for (const char* written : {"parallel.axes.shard=4", "runner.parallel.axes.shard=4"}) {
    const absl::StatusOr<core::JobSpec> next = Changed({written});
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_EQ(next->ranks, 4);
    EXPECT_EQ(Payload(*next).resources().ranks(), 4);
    EXPECT_EQ(Runner(*next)["parallel"]["axes"]["shard"], 4);
  }
  EXPECT_EQ(Changed({"parallel.axes.replicate=3"})->ranks, 6);
  EXPECT_EQ(Changed({"parallel.axes.shard=1"})->ranks, 1);
}

TEST(JobChanges, ADegreeLeftOpenTakesTheRanks) {
  const absl::StatusOr<core::JobSpec> next = Changed({"parallel.axes.shard=-1", "resources.ranks=8"});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->ranks, 8);
  EXPECT_EQ(Changed({"parallel.axes.shard=-1"})->ranks, 2) << "as before";
  EXPECT_EQ(Changed({"parallel.axes.shard=4", "resources.ranks=3"})->ranks, 3)
      << "what is set is taken; ranks refuse it";
}

TEST(JobChanges, WhatIsNotSetStays) {
  const core::JobSpec before = Divided();
  const absl::StatusOr<core::JobSpec> next = Changed({"steps=80", "resources.threads_per_rank=2"});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(Runner(*next)["steps"], 80);
  EXPECT_EQ(Runner(*next)["optim"], Runner(before)["optim"]);
  v1::JobSpec expected = Payload(before), found = Payload(*next);
  expected.mutable_resources()->set_threads_per_rank(2);
  expected.clear_runner_json();
  found.clear_runner_json();
  EXPECT_EQ(expected.SerializeAsString(), found.SerializeAsString());
}

TEST(JobChanges, RetentionFollowsTheOption) {
  EXPECT_EQ(Changed({"checkpoint.keep_latest_k=7"})->keep_latest_k, 7);
}

TEST(JobChanges, WhatACheckpointDoesNotAllowIsRefusedButFromScratch) {
  const absl::Status refused = Changed({"optim.lr=0.2"}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("optim.lr: saved 0.1, now 0.2"));
  const absl::StatusOr<core::JobSpec> fresh = Changed({"optim.lr=0.2"}, /*from_scratch=*/true);
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  EXPECT_EQ(Runner(*fresh)["optim"]["lr"], 0.2);
}

TEST(JobChanges, WrongOnesNameWhatIsAllowed) {
  const std::pair<const char*, const char*> wrong[] = {
      {"parallel.axes.shard", "expected field=value"},
      {"=4", "expected field=value"},
      {"resources.ranks=many", "found 'many'; allowed: integer >= 1"},
      {"resources.ranks=0", "allowed: integer >= 1"},
      {"resources.ranks=5000", "allowed: 1 to 4096"},
      {"parallel.axes.shard=5000", "resources.ranks: 5000; allowed: 1 to 4096"},
      {"resources.device=cuda", "a resume keeps it; allowed: options of the runner, resources.ranks"},
      {"name=other", "a resume keeps it"},
      {"env.TOKEN=x", "a resume keeps it"},
      {"parallel.axis.shard=4", "runner.parallel.axis"},
      {"stack=ddp", "parallel.axes"},
      {"parallel..axes=1", "--set 'parallel..axes=1'"}};
  for (const auto& [set, message] : wrong) {
    const absl::Status status = Changed({set}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << set;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << set;
  }
  Assignments many;
  for (int i = 0; i < 65; ++i) many.Add("steps=1");
  EXPECT_THAT(std::string(CheckChanges(many).message()), HasSubstr("65 assignments; allowed: 64"));
  Assignments longest;
  longest.Add("steps=" + std::string(5000, '1'));
  EXPECT_THAT(std::string(CheckChanges(longest).message()), HasSubstr("5006 bytes; allowed: 4096"));
}

}  // namespace
}  // namespace athanor

// A table of bad requests: each is refused with INVALID_ARGUMENT, the field, what was found and what is allowed.
#include "server/rpc/request_validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "athanor/config/job_rules.h"

namespace athanor {
namespace {

using testing::HasSubstr;

v1::JobSpec GoodSpec() {
  v1::JobSpec spec;
  spec.set_name("digits");
  spec.mutable_task()->set_name("digits_mlp");
  spec.mutable_task()->set_options_json(R"({"data": "/data/digits.csv"})");
  spec.mutable_resources()->set_ranks(2);
  spec.set_runner_json(R"({"steps": 400, "optim": {"type": "adamw", "lr": 0.002}})");
  return spec;
}

struct BadSpec {
  const char* what;
  std::function<void(v1::JobSpec&)> spoil;
  const char* message;  // a part of it
};

std::vector<BadSpec> BadSpecs() {
  using Spec = v1::JobSpec;
  return {
      {"no name", [](Spec& s) { s.clear_name(); }, "name: ''; allowed: [a-z0-9]([-a-z0-9._]*[a-z0-9])?, at most 63"},
      {"slash", [](Spec& s) { s.set_name("a/b"); }, "name: 'a/b'; allowed:"},
      {"dots first", [](Spec& s) { s.set_name("../up"); }, "name: '../up'; allowed:"},
      {"dash first", [](Spec& s) { s.set_name("-rf"); }, "name: '-rf'; allowed:"},
      {"dot last", [](Spec& s) { s.set_name("a."); }, "name: 'a.'; allowed:"},
      {"capital", [](Spec& s) { s.set_name("Digits"); }, "name: 'Digits'; allowed:"},
      {"newline", [](Spec& s) { s.set_name("a\nb"); }, "name: 'a\\nb'; allowed:"},
      {"escape", [](Spec& s) { s.set_name("a\x1b[31m"); }, "name: 'a\\x1b[31m'; allowed:"},
      {"emoji", [](Spec& s) { s.set_name("a\xf0\x9f\x94\xa5"); }, "name: 'a\\xf0\\x9f\\x94\\xa5'; allowed:"},
      {"64 bytes", [](Spec& s) { s.set_name(std::string(64, 'a')); }, "at most 63 bytes"},
      {"10 kB", [](Spec& s) { s.set_name(std::string(10240, 'a')); }, "…' (10240 bytes); allowed:"},
      {"label key", [](Spec& s) { (*s.mutable_labels())[""] = "x"; }, "labels: key ''; allowed: 1 to 128 printable"},
      {"label bell", [](Spec& s) { (*s.mutable_labels())["a\a"] = "x"; }, "labels: key 'a\\x07'"},
      {"label value", [](Spec& s) { (*s.mutable_labels())["k"] = std::string(257, 'v'); },
       "labels.k: 257 bytes; allowed: 256"},
      {"65 labels",
       [](Spec& s) {
         for (int i = 0; i < 65; ++i) (*s.mutable_labels())[std::to_string(i)] = "";
       },
       "labels: 65 entries; allowed: 64"},
      {"no task", [](Spec& s) { s.clear_task(); }, "task.name: missing; name a built-in task"},
      {"task name", [](Spec& s) { s.mutable_task()->set_name("a\tb"); }, "task.name: 'a\\tb'; allowed: 1 to 128"},
      {"relative library", [](Spec& s) { s.mutable_task()->set_library("lib.so"); },
       "task.library: 'lib.so'; allowed: an absolute path"},
      {"options", [](Spec& s) { s.mutable_task()->set_options_json("[1]"); }, "task.options: not a JSON object"},
      {"broken options", [](Spec& s) { s.mutable_task()->set_options_json("{"); }, "task.options: not a JSON object"},
      {"large options", [](Spec& s) { s.mutable_task()->set_options_json(std::string(262145, ' ')); },
       "task.options: 262145 bytes; allowed: 262144"},
      {"no ranks", [](Spec& s) { s.mutable_resources()->set_ranks(0); }, "resources.ranks: 0; allowed: 1 to 4096"},
      {"many ranks", [](Spec& s) { s.mutable_resources()->set_ranks(4097); }, "resources.ranks: 4097; allowed: 1 to"},
      {"negative ranks", [](Spec& s) { s.mutable_resources()->set_ranks(-1); }, "resources.ranks: -1; allowed: 1 to"},
      {"slots", [](Spec& s) { s.mutable_resources()->set_slots_per_rank(65); }, "slots_per_rank: 65; allowed: 0 to 64"},
      {"threads", [](Spec& s) { s.mutable_resources()->set_threads_per_rank(-1); }, "threads_per_rank: -1; allowed: 0"},
      {"device", [](Spec& s) { s.mutable_resources()->set_device("tpu"); }, "device: 'tpu'; allowed: cpu, cuda"},
      {"fencing", [](Spec& s) { s.set_fencing("loose"); }, "fencing: 'loose'; allowed: generation, strict"},
      {"priority", [](Spec& s) { s.set_priority(1001); }, "priority: 1001; allowed: -1000 to 1000"},
  };
}

std::vector<BadSpec> BadRules() {
  using Spec = v1::JobSpec;
  return {
      {"cause", [](Spec& s) { (*s.mutable_restart()->mutable_budgets())["sigkill"] = 1; },
       "restart.budgets: unknown cause 'sigkill'; allowed: user_code, out_of_memory, signal"},
      {"budget", [](Spec& s) { (*s.mutable_restart()->mutable_budgets())["signal"] = -2; },
       "restart.budgets.signal: -2; allowed: -1 to"},
      {"back-off", [](Spec& s) { s.mutable_restart()->mutable_backoff_max()->set_seconds(-5); },
       "restart.backoff_max: -5 s; allowed: 0 to 2592000 s"},
      {"jitter", [](Spec& s) { s.mutable_restart()->set_backoff_jitter(1.5); }, "backoff_jitter: 1.5; allowed: 0 to 1"},
      {"NaN jitter", [](Spec& s) { s.mutable_restart()->set_backoff_jitter(std::nan("")); }, "backoff_jitter: nan"},
      {"crash loop", [](Spec& s) { s.mutable_restart()->set_max_generations_without_progress(-1); },
       "max_generations_without_progress: -1; allowed: 0 to"},
      {"join", [](Spec& s) { s.mutable_timeouts()->mutable_join()->set_seconds(INT64_MAX); },
       "timeouts.join: 9223372036854775807 s; allowed:"},
      {"nanos", [](Spec& s) { s.mutable_timeouts()->mutable_hang()->set_nanos(2000000000); },
       "timeouts.hang: 0 s; allowed"},
      {"env name", [](Spec& s) { (*s.mutable_env())["1A"] = "x"; }, "env: name '1A'; allowed: letters, digits and _"},
      {"env equals", [](Spec& s) { (*s.mutable_env())["A=B"] = "x"; }, "env: name 'A=B'; allowed: letters"},
      {"env NUL", [](Spec& s) { (*s.mutable_env())["A"] = std::string("sec\0ret", 7); }, "env.A: holds a NUL byte"},
      {"env size", [](Spec& s) { (*s.mutable_env())["A"] = std::string(65537, 'x'); }, "env.A: 65537 bytes; allowed:"},
      {"parent", [](Spec& s) { s.set_parent_job("../x"); }, "parent.job: '../x'; allowed:"},
      {"parent's step",
       [](Spec& s) {
         s.set_parent_job("a");
         s.set_parent_checkpoint("la test");
       },
       "parent.checkpoint: 'la test'; allowed:"},
      {"runner list", [](Spec& s) { s.set_runner_json("[]"); }, "runner: not a JSON object"},
      {"no runner", [](Spec& s) { s.clear_runner_json(); }, "runner.steps: missing: set steps or epochs"},
      {"runner text", [](Spec& s) { s.set_runner_json("{\"steps\": "); }, "runner: not a JSON object"},
      {"runner size", [](Spec& s) { s.set_runner_json(std::string(262145, ' ')); },
       "runner: 262145 bytes; allowed: 262144"},
      {"runner key", [](Spec& s) { s.set_runner_json(R"({"stepz": 3})"); }, "runner.stepz: "},
      {"runner value", [](Spec& s) { s.set_runner_json(R"({"steps": -3})"); }, "runner.steps: "},
      {"precision of a train step",
       [](Spec& s) {
         s.mutable_task()->set_name("train_step");
         s.set_runner_json(R"({"steps": 4, "optim": {"type": "sgd", "lr": 0.1}, "precision": "bf16"})");
       },
       "runner.precision: 'bf16' with task train_step; allowed: leave it out"},
      {"device of a train step",
       [](Spec& s) {
         s.mutable_task()->set_name("train_step");
         s.mutable_resources()->set_device("cuda");
       },
       "resources.device: 'cuda' with task train_step; allowed: cpu"},
      {"deep runner key", [](Spec& s) { s.set_runner_json(R"({"optim": {"type": "adamw", "lrr": 1}})"); },
       "runner.optim"},
  };
}

TEST(RequestValidation, AGoodSpecPasses) {
  const absl::Status status = CheckJobSpec(GoodSpec());
  EXPECT_TRUE(status.ok()) << status;
}

// docs/job-files.md says what stands in for an absent field: the core takes the same.
TEST(RequestValidation, AbsentFieldsMeanWhatTheManualSays) {
  const absl::StatusOr<core::JobSpec> spec = TakeJobSpec(GoodSpec());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto duration = [](const char* path) {
    absl::Duration value;
    EXPECT_TRUE(absl::ParseDuration(JobFieldAt(path).fallback, &value)) << path;
    return value;
  };
  const auto number = [](const char* path) {
    double value = -1;
    EXPECT_TRUE(absl::SimpleAtod(JobFieldAt(path).fallback, &value)) << path;
    return value;
  };
  EXPECT_EQ(spec->restart.backoff_initial, duration("restart.backoff_initial"));
  EXPECT_EQ(spec->restart.backoff_max, duration("restart.backoff_max"));
  EXPECT_EQ(spec->restart.max_generations_without_progress, number("restart.max_generations_without_progress"));
  EXPECT_EQ(spec->timeouts.join, duration("timeouts.join"));
  EXPECT_EQ(spec->timeouts.startup, duration("timeouts.startup"));
  EXPECT_EQ(spec->timeouts.hang, duration("timeouts.hang"));
  EXPECT_EQ(spec->timeouts.stop_grace, duration("timeouts.stop_grace"));
  EXPECT_EQ(spec->slots_per_rank, number("resources.slots_per_rank"));
  EXPECT_EQ(spec->device, JobFieldAt("resources.device").fallback);
  EXPECT_EQ(spec->priority, number("priority"));
  EXPECT_EQ(spec->fencing, core::Fencing::kGeneration);
  EXPECT_EQ(core::RestartPolicySpec().backoff_jitter, number("restart.backoff_jitter"));
}

TEST(RequestValidation, BadSpecsAreRefusedPrecisely) {
  std::vector<BadSpec> table = BadSpecs();
  for (const BadSpec& bad : BadRules()) table.push_back(bad);
  for (const BadSpec& bad : table) {
    v1::JobSpec spec = GoodSpec();
    bad.spoil(spec);
    const absl::Status status = CheckJobSpec(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << bad.what;
    EXPECT_LT(status.message().size(), 2000u) << bad.what << ": what came in is not sent back whole";
  }
}

// Values of the environment are secrets.
TEST(RequestValidation, EnvValuesAreNeverShown) {
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"A B", "hunter2"}, {"A", std::string("hunter2\0", 8)}, {"B", "hunter2" + std::string(65536, 'x')}}) {
    v1::JobSpec spec = GoodSpec();
    (*spec.mutable_env())[name] = value;
    const absl::Status status = CheckJobSpec(spec);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), testing::Not(HasSubstr("hunter2")));
  }
}

TEST(RequestValidation, EdgesOfWhatIsAllowed) {
  v1::JobSpec spec = GoodSpec();
  spec.set_name(std::string(63, 'a'));
  spec.mutable_resources()->set_ranks(4096);
  spec.set_priority(-1000);
  (*spec.mutable_env())["_A1"] = "";
  (*spec.mutable_restart()->mutable_budgets())["nan_loss"] = -1;
  spec.mutable_timeouts()->mutable_join()->set_seconds(2592000);
  const absl::Status status = CheckJobSpec(spec);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(RequestValidation, RequestKeys) {
  EXPECT_TRUE(CheckRequestKey("", /*required=*/false).ok());
  EXPECT_TRUE(CheckRequestKey("3f2a 9", true).ok());
  for (const std::string& bad : {std::string(), std::string("a\nb"), std::string(129, 'k')}) {
    const absl::Status status = CheckRequestKey(bad, true);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("allowed: 1 to 128 printable bytes, a fresh one"));
  }
}

TEST(RequestValidation, References) {
  for (const char* good : {"a", "digits-4f7k", "120", "latest", "step-000000000120", "v1.0_rc"})
    EXPECT_TRUE(CheckReference("job", good).ok()) << good;
  for (const std::string& bad : {std::string(), std::string("a/b"), std::string("a b"), std::string(129, 'a')})
    EXPECT_THAT(std::string(CheckReference("job", bad).message()), HasSubstr("at most 128 bytes")) << bad;
}

TEST(RequestValidation, ShownValuesAreHarmless) {
  EXPECT_EQ(Show("plain"), "'plain'");
  EXPECT_EQ(Show("\x1b]0;title\a"), "'\\x1b]0;title\\x07'");
  EXPECT_EQ(Show(std::string(65, 'a')), "'" + std::string(64, 'a') + "…' (65 bytes)");
}

}  // namespace
}  // namespace athanor

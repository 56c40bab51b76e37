// Job files through the door of the command line: what reaches the spec, and what is said about what is wrong.
#include "client/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr char kGood[] = R"(name: fine
task:
  name: digits_mlp
  options: {data: digits.csv}
runner:
  steps: 100
  optim: {type: adamw, lr: 0.001}
)";

v1::JobSpec Read(const std::string& more, const std::vector<std::string>& sets = {}) {
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile("/folder/job.yaml", kGood + more, sets);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.value_or(v1::JobSpec());
}

std::string Refused(const std::string& text, const std::vector<std::string>& sets = {}) {
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile("/folder/job.yaml", text, sets);
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(spec.status().message());
}

std::map<std::string, std::string> Env(const v1::JobSpec& spec) {
  return {spec.env().begin(), spec.env().end()};
}

class Folder {
 public:
  Folder() { EXPECT_NE(mkdtemp(path_.data()), nullptr); }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
    return path_ + "/" + name;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = testing::TempDir() + "/athanor-job-XXXXXX";
};

TEST(PlainScalars, OfEnvAndLabelsAreTextAsWritten) {
  const v1::JobSpec spec = Read(R"(env:
  VERSION: 3.10
  ZIP: 01234
  FLAG: True
  EXPONENT: 1e3
  PLUS: +1.5
  HUGE: 1e999
  ENDLESS: .inf
  LONG: 99999999999999999999999
  HEX: 0x1F
  QUOTED: "3.10"
  TAGGED: !!str 3.10
  EMPTY: ""
labels: {version: 3.10, zip: 01234, flag: True, app.kubernetes.io/part: 1.20}
parent: {job: other, checkpoint: 1.10}
)");
  EXPECT_THAT(Env(spec), UnorderedElementsAre(Pair("VERSION", "3.10"), Pair("ZIP", "01234"), Pair("FLAG", "True"),
                                              Pair("EXPONENT", "1e3"), Pair("PLUS", "+1.5"), Pair("HUGE", "1e999"),
                                              Pair("ENDLESS", ".inf"), Pair("LONG", "99999999999999999999999"),
                                              Pair("HEX", "0x1F"), Pair("QUOTED", "3.10"), Pair("TAGGED", "3.10"),
                                              Pair("EMPTY", "")));
  EXPECT_THAT(spec.labels(), UnorderedElementsAre(Pair("version", "3.10"), Pair("zip", "01234"), Pair("flag", "True"),
                                                  Pair("app.kubernetes.io/part", "1.20")));
  EXPECT_EQ(spec.parent_checkpoint(), "1.10");
}

TEST(PlainScalars, OfOverridesAreTextAsWritten) {
  const v1::JobSpec spec = Read(
      "env: {VERSION: 1}\nlabels: {a: 1}\n",
      {"env.VERSION=3.10", "env.ZIP=01234", "env.FLAG=True", "env.QUOTED=\"3.10\"", "env.EMPTY=", "labels.version=3.10",
       "labels.app.kubernetes.io/part=1.20", "parent.job=other", "parent.checkpoint=0120"});
  EXPECT_THAT(Env(spec), UnorderedElementsAre(Pair("VERSION", "3.10"), Pair("ZIP", "01234"), Pair("FLAG", "True"),
                                              Pair("QUOTED", "3.10"), Pair("EMPTY", "")));
  EXPECT_THAT(spec.labels(),
              UnorderedElementsAre(Pair("a", "1"), Pair("version", "3.10"), Pair("app.kubernetes.io/part", "1.20")));
  EXPECT_EQ(spec.parent_checkpoint(), "0120");
  const v1::JobSpec whole = Read("env: {OLD: 1}\n", {R"(env={"VERSION": 3.10, "FLAG": true})"});
  EXPECT_THAT(Env(whole), UnorderedElementsAre(Pair("VERSION", "3.10"), Pair("FLAG", "true")));
}

TEST(Overrides, MayBeWrittenAsInTheFile) {
  const Folder folder;
  const std::string file = folder.Write("token", "3.10\n");
  EXPECT_THAT(Env(Read("", {"env={VERSION: 3.10, ZIP: 01234}", absl::StrCat("env.TOKEN={from_file: ", file, "}")})),
              UnorderedElementsAre(Pair("VERSION", "3.10"), Pair("ZIP", "01234"), Pair("TOKEN", "3.10")));
  EXPECT_THAT(Refused(kGood, {"env.A={from_file: /}"}), HasSubstr("--set env.A: env.A: cannot read /: it is a folder"));
  EXPECT_THAT(Refused(kGood, {"env.A={from_file: x, b: c}"}), HasSubstr("found object; allowed: text"));
  EXPECT_THAT(Env(Read("", {"env.A={name}", "env.B={a: 1}", "env.C={"})),
              UnorderedElementsAre(Pair("A", "{name}"), Pair("B", "{a: 1}"), Pair("C", "{")));
  const v1::JobSpec spec = Read("", {"task.options={data: a.csv, seed: 3}", "runner.optim={type: sgd, lr: 0.5}"});
  EXPECT_EQ(spec.task().options_json(), R"({"data":"/folder/a.csv","seed":3})");
  EXPECT_THAT(spec.runner_json(), HasSubstr(R"("optim":{"lr":0.5,"type":"sgd"})"));
}

TEST(Overrides, AreNamedWhereTheyAreWrong) {
  EXPECT_THAT(Refused(kGood, {"runer.steps=5"}), HasSubstr("--set runer.steps: runer: unknown key"));
  EXPECT_THAT(Refused(kGood, {"runner.stepz=5"}), HasSubstr("--set runner.stepz: runner.stepz: unknown key"));
  EXPECT_THAT(Refused(std::string(kGood) + "taks: 1\n", {"runner.steps=5"}),
              HasSubstr("job.yaml:8:1: taks: unknown key"));
}

TEST(PlainScalars, ElsewhereAreWhatTheyLookLike) {
  EXPECT_THAT(Read("priority: 010\n").priority(), 10);
  EXPECT_THAT(Read("", {"task.options.seed=18446744073709551615"}).task().options_json(),
              HasSubstr("18446744073709551615"))
      << "whole numbers are not rounded";
  EXPECT_THAT(Refused(std::string(kGood) + "env: {A: [1]}\n"), HasSubstr("8:7: env.A: found array; allowed: text"));
  EXPECT_THAT(Refused(std::string(kGood) + "env:\n  A:\n"), HasSubstr("9:3: env.A: found null; allowed: text"));
  EXPECT_THAT(Refused(std::string(kGood) + "labels: {a: !secret x}\n"), HasSubstr("the tag !secret has no meaning"));
}

TEST(Text, ThatIsNotUtf8NamesItsPlace) {
  EXPECT_THAT(Refused("name: fine\nlabels: {a: \xff}\n"), HasSubstr("job.yaml:2:13: byte 0xff is not UTF-8"));
  EXPECT_THAT(Refused(kGood, {"labels.a=\xff"}), HasSubstr("not UTF-8"));
  EXPECT_THAT(Refused(kGood, {"env.A=\xff"}), HasSubstr("not UTF-8"));
  const Folder folder;
  const std::string file = folder.Write("latin1", "gr\xfc\xdf\n");
  EXPECT_THAT(Refused(kGood + absl::StrCat("env: {A: {from_file: ", file, "}}\n")),
              HasSubstr(absl::StrCat("job.yaml:8:7: env.A: ", file, ": byte 3 is not UTF-8; allowed: UTF-8 text")));
  setenv("ATHANOR_TEST_LATIN1", "\xfc", 1);
  EXPECT_THAT(Refused(std::string(kGood) + "env: {A: {from_env: ATHANOR_TEST_LATIN1}}\n"),
              HasSubstr("env.A: ATHANOR_TEST_LATIN1: byte 1 is not UTF-8"));
}

TEST(EnvFromFile, IsAFileOfText) {
  const Folder folder;
  const auto from = [&](const std::string& path) {
    return kGood + absl::StrCat("env: {A: {from_file: ", path, "}}\n");
  };
  EXPECT_THAT(Refused(from("/")), HasSubstr("8:7: env.A: cannot read /: it is a folder; allowed: a file"));
  EXPECT_THAT(Refused(from(folder.path())), HasSubstr("it is a folder"));
  EXPECT_THAT(Refused(from("/dev/zero")), HasSubstr("env.A: /dev/zero: found 65538 bytes; allowed: at most 65536"));
  EXPECT_THAT(Refused(from(folder.path() + "/absent")), HasSubstr("No such file or directory"));
  const std::string refused = Refused(from(folder.Write("nul", std::string("sec\0ret", 7))));
  EXPECT_THAT(refused, HasSubstr("holds a NUL byte"));
  EXPECT_THAT(refused, Not(HasSubstr("sec\\")));
  EXPECT_EQ(
      Env(Read("env: {A: {from_file: " + folder.Write("good", std::string(65536, 'x') + "\n") + "}}\n"))["A"].size(),
      65536u);
}

TEST(Limits, OfLabelsAndEnvHaveFileAndLine) {
  EXPECT_THAT(Refused(kGood + absl::StrCat("labels:\n  team: ", std::string(257, 'x'), "\n")),
              HasSubstr("job.yaml:9:3: labels.team: found 257 bytes; allowed: at most 256"));
  EXPECT_THAT(Refused(kGood + absl::StrCat("labels:\n  ", std::string(129, 'k'), ": x\n")),
              HasSubstr("found a name of 129 bytes; allowed: 1 to 128 printable bytes"));
  std::string many = "labels:\n";
  for (int i = 0; i < 65; ++i) absl::StrAppend(&many, "  l", i, ": x\n");
  EXPECT_THAT(Refused(kGood + many), HasSubstr("job.yaml:8:1: labels: found 65 entries; allowed: 64"));
  EXPECT_THAT(Refused(kGood + absl::StrCat("env:\n  A: ", std::string(65537, 'x'), "\n")),
              HasSubstr("job.yaml:9:3: env.A: found 65537 bytes; allowed: at most 65536"));
}

TEST(Yaml, ATabIsNamed) {
  EXPECT_THAT(Refused("name: fine\ntask:\n\tname: digits_mlp\n"),
              HasSubstr("line 3 is indented with a tab (column 1), YAML allows blanks only"));
  EXPECT_THAT(Refused("name: fine\nenv:\n  A: 1\n  \tB: 2\n"), HasSubstr("line 4 is indented with a tab (column 3)"));
  EXPECT_THAT(Refused("name: fine\nlist:\n  -\ta: 1\n  -\tb: 1\n"), HasSubstr("line 3 is indented with a tab"));
  EXPECT_THAT(Refused("name: fine\n   bad: 1\n"), Not(HasSubstr("tab")));
}

TEST(Yaml, OrJson) {
  const char job[] =
      "{\n\t\"name\": \"fine\",\n\t\"labels\": {\"e\": \"\\ud83d\\ude00 a\\/b \\u00e4 \\\\ud83d\"},\n"
      "\t\"task\": {\"name\": \"digits_mlp\"},\n\t\"runner\": {\"steps\": 1, \"optim\": {\"type\": \"sgd\"}}\n}\n";
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile("job.json", job, {});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->labels().at("e"), "\xf0\x9f\x98\x80 a/b \xc3\xa4 \\ud83d");
  const std::string half = Refused("{\n\t\"name\": \"\\ud83d\"}\n");
  EXPECT_THAT(half, HasSubstr("job.yaml:2:17: not YAML: invalid unicode"));
  EXPECT_THAT(half, Not(HasSubstr("tab"))) << "not what is wrong";
}

TEST(Yaml, MergeKeys) {
  const v1::JobSpec spec = Read(R"(env: &base {A: 1, B: 2.0}
labels:
  <<: *base
  B: own
)");
  EXPECT_THAT(spec.labels(), UnorderedElementsAre(Pair("A", "1"), Pair("B", "own")));
  const v1::JobSpec list = Read(R"(env: &first {A: 1, B: 2}
parent: &second {job: other}
labels: {C: 3, <<: [*first, {B: later, D: 010}]}
)");
  EXPECT_THAT(list.labels(), UnorderedElementsAre(Pair("A", "1"), Pair("B", "2"), Pair("C", "3"), Pair("D", "010")));
  EXPECT_THAT(Refused(std::string(kGood) + "labels: {<<: text}\n"),
              HasSubstr("8:14: labels.<<: allowed: a map (*name), or a list of maps"));
  EXPECT_THAT(Refused("name: fine\nenv: &a\n  <<: *a\n  A: 1\n"), HasSubstr("too large"));
  EXPECT_THAT(Refused("name: fine\nenv: &a {A: 1}\nlabels: {<<: *a, B: 1, B: 2}\n"), HasSubstr("the key stands twice"));
  EXPECT_THAT(Read("labels: {\"<<\": text}\n").labels(), UnorderedElementsAre(Pair("<<", "text")));
}

TEST(TrainStep, ComputesAsItWasExported) {
  const std::string job =
      "name: fine\ntask: {name: train_step, options: {data: a.csv, package: p}}\n"
      "resources: {device: cpu}\nrunner:\n  steps: 10\n  optim: {type: sgd, lr: 0.1}\n  precision: ";
  EXPECT_TRUE(ParseJobFile("job.yaml", job + "fp32\n", {}).ok());
  for (const char* precision : {"bf16", "fp16"})
    EXPECT_THAT(Refused(job + precision + "\n"), HasSubstr("7:3: runner.precision: found \"" + std::string(precision)));
  EXPECT_THAT(Refused(job + "fp32\n", {"resources.device=cuda"}), HasSubstr("resources.device: found \"cuda\""));
}

TEST(Paths, StartAtTheFileOrAtHome) {
  setenv("HOME", "/home/someone", 1);
  const v1::JobSpec spec = Read("", {"task.options.data=~/digits.csv", "runner.pretrained=weights.pt",
                                     "task.library=~/lib/task.so", "task.options.extra_data=[\"a.csv\", \"~/b.csv\"]"});
  EXPECT_THAT(spec.task().options_json(), HasSubstr(R"("data":"/home/someone/digits.csv")"));
  EXPECT_THAT(spec.task().options_json(), HasSubstr(R"("extra_data":["/folder/a.csv","/home/someone/b.csv"])"));
  EXPECT_THAT(spec.runner_json(), HasSubstr(R"("pretrained":"/folder/weights.pt")"));
  EXPECT_EQ(spec.task().library(), "/home/someone/lib/task.so");
  EXPECT_THAT(Read("", {"runner.pretrained=s3://bucket/weights.pt"}).runner_json(),
              HasSubstr("\"s3://bucket/weights.pt\""));
}

// What is wrong is shown as it stands in the file: 01234 is the integer 1234 to a reader of YAML.
TEST(JobFile, AMessageShowsAScalarAsItIsWritten) {
  std::string name = kGood;
  name.replace(0, 10, "name: 01234");
  EXPECT_THAT(Refused(name), HasSubstr("job.yaml:1:1: name: found 01234 (integer); allowed: text"));
  const std::map<std::string, std::string> wrong = {
      {"fencing: 1.50", "fencing: found 1.50 (number)"},
      {"preemptible: 0x0", "preemptible: found \"0x0\" (string)"},
      {"priority: 1e30", "priority: found 1e30 (number)"},
      {"priority: 0002000", "priority: found 0002000 (integer)"},
      {"resources: {ranks: 010000}", "resources.ranks: found 010000 (integer)"},
      {"resources: {device: True}", "resources.device: found True (boolean)"},
      {"restart: {budgets: {signal: -07}}", "restart.budgets.signal: found -07 (integer)"},
      {"restart: {backoff_jitter: 1.50}", "restart.backoff_jitter: found 1.50 (number)"},
      {"timeouts: {hang: 0010}", "timeouts.hang: found 0010 (integer)"},
  };
  for (const auto& [line, message] : wrong) EXPECT_THAT(Refused(kGood + line + "\n"), HasSubstr(message)) << line;
  EXPECT_THAT(Refused(kGood, {"name=007"}), HasSubstr("--set name: name: found 007 (number)"));
  const std::string runner = "name: a\ntask: {name: digits_mlp}\nrunner:\n  optim: {type: sgd, ";
  EXPECT_THAT(Refused(runner + "lr: -0.50}\n  steps: 1\n"), HasSubstr("runner.optim.lr: found -0.50 (number)"));
  EXPECT_THAT(Refused(runner + "betas: [0.9, TRUE]}\n  steps: 1\n"), HasSubstr("found TRUE (boolean)"));
  EXPECT_THAT(Refused(runner + "lr: 1}\n  steps: 0010.50\n"), HasSubstr("runner.steps: found 0010.50 (number)"));
}

}  // namespace
}  // namespace athanor

#include "athanor/config/reflection.h"

#include <gtest/gtest.h>

namespace athanor {
namespace {

struct Inner {
  int32_t count = 1;
  std::optional<double> rate;
};
BOOST_DESCRIBE_STRUCT(Inner, (), (count, rate))

struct Outer {
  std::string name;
  std::vector<Inner> parts;
  std::map<std::string, std::string> labels;
};
BOOST_DESCRIBE_STRUCT(Outer, (), (name, parts, labels))

TEST(ReflectionTest, ServesStructsWithoutRules) {
  const nlohmann::json file = {{"name", "a"}, {"parts", {{{"count", 3}}, {{"rate", 0.5}}}}, {"labels", {{"k", "v"}}}};
  Outer outer;
  std::vector<FieldProblem> problems;
  EXPECT_TRUE(CheckStruct(file, "job", &outer, &problems));
  EXPECT_EQ(outer.parts.size(), 2u);
  EXPECT_EQ(outer.parts[0].count, 3);
  EXPECT_EQ(outer.labels["k"], "v");
  Outer again;
  EXPECT_TRUE(CheckStruct(StructToJson(outer), "job", &again, &problems));
  EXPECT_EQ(StructToJson(again), StructToJson(outer));
}

TEST(ReflectionTest, NamesThePlaceInListsAndMaps) {
  Outer outer;
  std::vector<FieldProblem> problems;
  EXPECT_FALSE(CheckStruct({{"parts", {{{"count", 1}}, {{"count", 3000000000}}}}, {"labels", {{"k", 1}}}}, "job",
                           &outer, &problems));
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].path, "job.labels.k");
  EXPECT_EQ(problems[1].path, "job.parts[1].count");
}

TEST(ReflectionTest, FindsTheNearestName) {
  const std::vector<std::string> names = {"lr", "weight_decay", "momentum", "betas"};
  EXPECT_EQ(NearestName("weight-decay", names), "weight_decay");
  EXPECT_EQ(NearestName("wieght_decay", names), "weight_decay");
  EXPECT_EQ(NearestName("beta", names), "betas");
  EXPECT_EQ(NearestName("learning_rate", names), "");
  EXPECT_EQ(NearestName(std::string(10000, 'x'), names), "");
  EXPECT_EQ(NearestName("", names), "");
}

TEST(ReflectionTest, ShortensHostileValues) {
  const std::string text = DescribeJson(std::string(10000, 'x') + "\n\x1b[31m");
  EXPECT_LT(text.size(), 100u);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace athanor

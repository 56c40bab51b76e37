#include "athanor/config/config_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(ConfigIdentityTest, WhatDoesNotChangeTheRunDoesNotChangeItsId) {
  const json base = {{"steps", 10}, {"optim", {{"lr", 0.1}}}};
  for (const json& other : {json{{"steps", 10.0}, {"optim", {{"lr", 0.1}}}},
                            json{{"optim", {{"lr", 0.1}}}, {"steps", 10}, {"seed", nullptr}, {"stack", " Torch "}},
                            json{{"steps", 10},
                                 {"optim", {{"lr", 0.1}}},
                                 {"lineage", "x"},
                                 {"tensorboard", true},
                                 {"checkpoint", {{"interval", 3}}},
                                 {"fsdp", {{"enabled", true}}}}}) {
    EXPECT_EQ(ConfigId(base), ConfigId(other)) << other;
    EXPECT_TRUE(SemanticDifference(base, other).empty()) << other;
  }
  EXPECT_NE(ConfigId(base), ConfigId({{"steps", 10}, {"optim", {{"lr", 0.2}}}}));
  EXPECT_NE(ConfigId(base), ConfigId({{"steps", 10}, {"optim", {{"lr", 0.1}}}, {"my", {{"own", 1}}}}));
  EXPECT_THAT(ConfigId(base), testing::MatchesRegex("[0-9a-f]{12}"));
}

TEST(ConfigIdentityTest, DifferencesAreSeenBothWays) {
  const json saved = {{"max_grad_norm", 1.0}, {"optim", {{"lr", 0.1}, {"type", "sgd"}}}};
  const json current = {{"optim", {{"lr", 0.2}, {"type", "sgd"}}}, {"steps", 5}};
  const ConfigDifference difference = SemanticDifference(saved, current);
  EXPECT_EQ(difference.changed, json({{"optim", {{"lr", 0.2}}}, {"steps", 5}}));
  EXPECT_EQ(difference.before, json({{"max_grad_norm", 1}, {"optim", {{"lr", 0.1}}}, {"steps", nullptr}}));
  EXPECT_THAT(difference.Paths(), ElementsAre("max_grad_norm", "optim.lr", "steps"));
  EXPECT_THAT(difference.ForbiddenPaths(), ElementsAre("max_grad_norm", "optim.lr"));  // more steps may be asked for
  EXPECT_THAT(SemanticDifference({{"dataloader", {{"num_workers", 1}}}}, {{"dataloader", {{"num_workers", 4}}}})
                  .ForbiddenPaths(),
              IsEmpty());
}

TEST(ConfigIdentityTest, StacksAndBoundaries) {
  EXPECT_EQ(CanonicalStack(" Graph-Runner "), "graph");
  EXPECT_EQ(CanonicalStack("DS"), "deepspeed");
  EXPECT_TRUE(CheckStack("parallel").ok());
  EXPECT_THAT(std::string(CheckStack("foo").message()), testing::HasSubstr("allowed: auto, ddp"));
  EXPECT_FALSE(CheckBoundaries({{"steps", 1}, {"epochs", 1}}).ok());
  EXPECT_TRUE(CheckBoundaries({{"steps", 1}, {"epochs", nullptr}}).ok());
}

}  // namespace
}  // namespace athanor

#include "athanor/runner/state/weight_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

const std::set<std::string> kModule = {"fc.weight", "fc.bias"};

TEST(WeightNamesTest, WhatWrappersAddGoes) {
  for (const std::string prefix :
       {"", "module.", "model.", "_orig_mod.", "state_dict.", "state_dict.model.", "model_state_dict.",
        "module._orig_mod.", "_orig_mod.module.", "state_dict.model._orig_mod.", "_fsdp_wrapped_module.",
        "module._forward_module.", "net."}) {
    const auto map = MapNames({prefix + "fc.weight", prefix + "fc.bias"}, kModule, {});
    ASSERT_TRUE(map.ok()) << map.status();
    EXPECT_THAT(map->names,
                UnorderedElementsAre(Pair(prefix + "fc.weight", "fc.weight"), Pair(prefix + "fc.bias", "fc.bias")));
  }
  const auto inside =
      MapNames({"module.fc._orig_mod.weight", "module._checkpoint_wrapped_module.fc.bias"}, kModule, {});
  EXPECT_THAT(inside->names, UnorderedElementsAre(Pair(testing::_, "fc.weight"), Pair(testing::_, "fc.bias")));
}

TEST(WeightNamesTest, OnlyAsMuchGoesAsMakesNamesFit) {
  const std::set<std::string> own = {"model.fc.weight", "module.fc.bias"};
  const auto as_it_is = MapNames({"model.fc.weight", "module.fc.bias"}, own, {});
  EXPECT_EQ(as_it_is->prefix, "");
  EXPECT_EQ(as_it_is->names.at("model.fc.weight"), "model.fc.weight");
  const auto less = MapNames({"state_dict.model.fc.weight", "state_dict.module.fc.bias"}, own, {});
  EXPECT_EQ(less->prefix, "state_dict.");
  // What is not a wrapper's stays: another model.
  EXPECT_EQ(MapNames({"module.backbone.fc.weight"}, kModule, {})->names.at("module.backbone.fc.weight"),
            "module.backbone.fc.weight");
}

TEST(WeightNamesTest, OfSeveralSetsTheAverageIsTakenAndTheRestStays) {
  const auto map = MapNames({"state_dict.fc.weight", "state_dict.fc.bias", "state_dict_ema.fc.weight",
                             "state_dict_ema.fc.bias", "optimizer.momentum"},
                            kModule, {});
  EXPECT_EQ(map->prefix, "state_dict_ema.");
  EXPECT_EQ(map->names.at("state_dict_ema.fc.bias"), "fc.bias");
  EXPECT_EQ(map->names.at("state_dict.fc.bias"), "state_dict.fc.bias");
  EXPECT_EQ(map->names.at("optimizer.momentum"), "optimizer.momentum");
  EXPECT_EQ(MapNames({"model.fc.weight", "model.fc.bias", "ema.fc.weight"}, kModule, {})->prefix, "model.");
}

TEST(WeightNamesTest, RulesActOnTheNamesOfTheFileOrOnWhatIsLeft) {
  for (const char* pattern : {"^backbone\\.", "^module\\.backbone\\."}) {
    const auto map = MapNames({"module.backbone.fc.weight", "module.backbone.fc.bias"}, kModule, {{pattern, ""}});
    ASSERT_TRUE(map.ok()) << map.status();
    EXPECT_EQ(map->names.at("module.backbone.fc.weight"), "fc.weight") << pattern;
  }
  const auto turned = MapNames({"weight_fc", "bias_fc"}, kModule, {{"^(\\w+)_(\\w+)$", "$2.$1"}});
  EXPECT_EQ(turned->names.at("weight_fc"), "fc.weight");
  EXPECT_THAT(std::string(MapNames({"a", "b"}, kModule, {{"^.$", "fc.bias"}}).status().message()),
              HasSubstr("two tensors of the file become 'fc.bias'"));
  EXPECT_THAT(std::string(MapNames({"a"}, kModule, {{"(", ""}}).status().message()), HasSubstr("'(' is no expression"));
}

}  // namespace
}  // namespace athanor

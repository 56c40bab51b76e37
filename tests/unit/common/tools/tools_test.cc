// The small tools beside a training loop: tables, dictionaries, files, compression.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <new>
#include <stdexcept>

#include "athanor/nested/pn_tensor.h"
#include "athanor/tools/catch.h"
#include "athanor/tools/dict.h"
#include "athanor/tools/method_cache.h"
#include "athanor/tools/to_device.h"

namespace athanor {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(CatchTest, TurnsExceptionsIntoStatus) {
  std::vector<std::string> seen;
  const auto note = [&](const CaughtError& error) { seen.push_back(error.what + "|" + error.message); };
  EXPECT_TRUE(Catch("nothing", [] {}, note).ok());
  EXPECT_EQ(*Catch("value", [] { return 3; }, note), 3);
  const absl::Status failed = Catch("saving", [] { throw std::runtime_error("disk full\nbacktrace"); }, note);
  EXPECT_EQ(failed, absl::UnknownError("saving: disk full"));
  const absl::StatusOr<int> value = Catch("reading", []() -> int { throw std::out_of_range("7"); }, note);
  EXPECT_EQ(value.status().message(), "reading: 7");
  EXPECT_THAT(seen, ElementsAre("saving|disk full", "reading|7"));
}

TEST(CatchTest, OtherAndExcludedErrorsPassThrough) {
  EXPECT_THROW((void)Catch<std::runtime_error>("x", [] { throw std::logic_error("bug"); }), std::logic_error);
  EXPECT_THROW((void)(Catch<std::exception, std::bad_alloc>("x", [] { throw std::bad_alloc(); })), std::bad_alloc);
  EXPECT_THROW((void)Catch("x", [] { throw 1; }), int);
}

TEST(DebugOnErrorTest, ReportsAndGoesOn) {
  testing::internal::CaptureStderr();
  EXPECT_THROW(DebugOnError([] { throw std::runtime_error("here"); }), std::runtime_error);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("here"));
  testing::internal::CaptureStderr();
  EXPECT_THROW(DebugOnError([] { throw std::runtime_error("here"); }, false), std::runtime_error);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(DebugOnError([] { return 4; }), 4);
}

TEST(MethodCacheTest, RemembersAndForgetsTheOldest) {
  int calls = 0;
  MethodCache<int, int> cache(2);
  const auto square = [&](int x) {
    return cache.Get(x, [&] {
      ++calls;
      return x * x;
    });
  };
  EXPECT_EQ(square(2), 4);
  EXPECT_EQ(square(3), 9);
  EXPECT_EQ(square(2), 4);
  EXPECT_EQ(calls, 2);
  square(4);  // 3 was unused for longest
  square(2);
  EXPECT_EQ(calls, 3);
  square(3);
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(cache.size(), 2u);
  EXPECT_THROW(cache.Get(9, []() -> int { throw std::runtime_error("no"); }), std::runtime_error);
  EXPECT_EQ(square(9), 81);  // a failure is not remembered
  cache.Clear();
  EXPECT_EQ(cache.size(), 0u);
}

TEST(DictTest, FlatDictIsTypedAndComparable) {
  FlatDict a({{"lr", 0.1}, {"name", "x"}, {"a.b", 1}});
  EXPECT_EQ(*a.Get<double>("lr"), 0.1);
  EXPECT_EQ(*a.Get<int>("a.b"), 1);
  EXPECT_EQ(a.Get<double>("name").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(a.Get<int>("rl").status().message()), HasSubstr("a.b, lr, name"));
  FlatDict b({{"lr", 0.2}, {"name", "x"}});
  EXPECT_THAT(a.Difference(b).keys(), ElementsAre("a.b", "lr"));
  EXPECT_THAT(a.Intersection(b).keys(), ElementsAre("name"));
  a.Merge(b);
  EXPECT_EQ(*a.Get<double>("lr"), 0.2);
  EXPECT_TRUE(a.Erase("lr"));
  EXPECT_FALSE(a.Erase("lr"));
  EXPECT_EQ(a.size(), 2u);
}

TEST(DictTest, RoundDictRoundsEverywhere) {
  RoundDict results;
  results.Set("val.loss", 0.123456);
  results.Set("val.count", 12345);
  results.Set("list", json{1.005, {2.5}, "text", nullptr});
  const RoundDict rounded = results.Round(2);
  EXPECT_EQ(*rounded.Get<double>("val.loss"), 0.12);
  EXPECT_EQ(*rounded.Get<int64_t>("val.count"), 12345);
  EXPECT_EQ(rounded.ToJson()["list"][1][0], 2.5);
  EXPECT_EQ(RoundDict(json{{"x", 2.5}}).Round(0).ToJson()["x"], 2.0);  // to the even neighbour
  EXPECT_EQ(RoundDict(json{{"x", 1234.5}}).Round(-2).ToJson()["x"], 1200.0);
  EXPECT_TRUE(std::isnan(*RoundDict(json{{"x", std::nan("")}}).Round(2).Get<double>("x")));
  EXPECT_EQ(*results.Get<double>("val.loss"), 0.123456) << "a copy was rounded";
  EXPECT_THAT(std::string(results.Get<double>("val.acc").status().message()), HasSubstr("\"acc\" is missing"));
  EXPECT_EQ(rounded.ToString(), "list: [1.0,[2.5],\"text\",null]\nval.count: 12345\nval.loss: 0.12\n");
}

TEST(JsonTest, SerializableMeansItComesBack) {
  EXPECT_TRUE(IsJsonSerializable({{"a", {1, 2.5, nullptr, "ä"}}}));
  EXPECT_FALSE(IsJsonSerializable({{"a", {1, std::nan("")}}}));
  EXPECT_FALSE(IsJsonSerializable(HUGE_VAL));
  EXPECT_FALSE(IsJsonSerializable({{"a", "\xff\xfe"}}));
  EXPECT_FALSE(IsJsonSerializable({{"\xff", 1}}));
  EXPECT_TRUE((kIsJsonType<std::map<std::string, std::vector<int>>>));
  EXPECT_FALSE(kIsJsonType<torch::Tensor>);
}

struct Sized {
  torch::Tensor tensor;
  Sized To(torch::Device device) const { return {tensor.to(device)}; }
};

TEST(ToDeviceTest, MovesWhatHoldsTensors) {
  const torch::Device meta = torch::kMeta;  // a device that every build has
  using Nested = std::map<std::string, std::vector<std::pair<torch::Tensor, std::optional<torch::Tensor>>>>;
  const Nested nested = {{"a", {{torch::ones({2}), std::nullopt}, {torch::Tensor(), torch::zeros({3})}}}};
  const Nested moved = ToDevice(nested, meta);
  EXPECT_EQ(moved.at("a")[0].first.device(), meta);
  EXPECT_FALSE(moved.at("a")[0].second.has_value());
  EXPECT_FALSE(moved.at("a")[1].first.defined());
  EXPECT_EQ(moved.at("a")[1].second->sizes(), torch::IntArrayRef({3}));
  const auto tuple = ToDevice(std::tuple<int, torch::Tensor, Sized>(5, torch::ones({1}), {torch::ones({4})}), meta);
  EXPECT_EQ(std::get<0>(tuple), 5);
  EXPECT_EQ(std::get<1>(tuple).device(), meta);
  EXPECT_EQ(std::get<2>(tuple).tensor.device(), meta);
  Batch batch{.input = torch::ones({2, 2}), .target = {}, .size = 2};
  const Batch there = ToDevice(batch, meta);
  EXPECT_EQ(there.input.device(), meta);
  EXPECT_EQ(there.size, 2);
}

struct Styled {  // as LibTorch's own classes move
  torch::Tensor tensor;
  Styled to(torch::Device device) const { return {tensor.to(device)}; }
};

TEST(ToDeviceTest, MovesNestedTensorsAndWhatDerivesFromATensor) {
  const torch::Device meta = torch::kMeta;
  const NestedTensor x({torch::ones({2, 3}), torch::ones({1, 3})});
  EXPECT_EQ(ToDevice(x, meta).device(), meta);
  EXPECT_EQ(ToDevice(x, meta).shape(), x.shape());
  EXPECT_EQ(ToDevice(std::vector<NestedTensor>{x}, meta)[0].device(), meta);
  EXPECT_EQ(ToDevice(std::map<std::string, std::optional<NestedTensor>>{{"x", x}}, meta).at("x")->device(), meta);
  const PNTensor sample = ToDevice(MakePNTensor({1, 2, 3}), meta);
  EXPECT_EQ(sample.device(), meta);
  EXPECT_EQ(sample.mask().device(), meta);
  EXPECT_FALSE(ToDevice(PNTensor(), meta).defined());
  EXPECT_EQ(ToDevice(NestedValue(x), meta).nested().device(), meta);
  EXPECT_EQ(ToDevice(NestedValue(torch::ones({2})), meta).dense().device(), meta);
  EXPECT_EQ(ToDevice(NestedValue(2), meta).dense().item<int>(), 2) << "a number has no device";
  EXPECT_EQ(ToDevice(Styled{torch::ones({2})}, meta).tensor.device(), meta);
  EXPECT_EQ(ToDevice(Batch{.ragged = x, .size = 2}, meta).ragged->device(), meta);
}

}  // namespace
}  // namespace athanor

#include "athanor/parallel/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

namespace athanor {
namespace {

using ::testing::HasSubstr;

class Random {
 public:
  explicit Random(uint32_t seed) : generator_(seed) {}
  int64_t Below(int64_t limit) { return std::uniform_int_distribution<int64_t>(0, limit - 1)(generator_); }

  std::vector<int64_t> Shape() {
    std::vector<int64_t> shape(static_cast<size_t>(Below(4)));
    for (int64_t& extent : shape) extent = Below(7);
    return shape;
  }
  Box Part(const std::vector<int64_t>& shape) {
    Box box;
    for (const int64_t extent : shape) {
      box.begin.push_back(Below(extent + 1));
      box.extent.push_back(Below(extent - box.begin.back() + 1));
    }
    return box;
  }
  // Boxes that together cover the shape, cut at random; some of them twice.
  std::vector<Piece> Cover(const std::vector<int64_t>& shape) {
    std::vector<Box> boxes = {WholeBox(shape)};
    for (int64_t cuts = Below(6); cuts > 0 && !shape.empty(); --cuts) {
      Box& box = boxes[static_cast<size_t>(Below(static_cast<int64_t>(boxes.size())))];
      const auto dim = static_cast<size_t>(Below(static_cast<int64_t>(shape.size())));
      const int64_t at = Below(box.extent[dim] + 1);
      Box rest = box;
      box.extent[dim] = at;
      rest.begin[dim] += at;
      rest.extent[dim] -= at;
      boxes.push_back(rest);
    }
    for (int64_t more = Below(3); more > 0; --more) boxes.push_back(Part(shape));
    std::shuffle(boxes.begin(), boxes.end(), generator_);
    std::vector<Piece> pieces;
    for (const Box& box : boxes) pieces.push_back({box, static_cast<int>(Below(4))});
    return pieces;
  }

 private:
  std::mt19937 generator_;
};

// Every element's place, as a list of coordinates.
std::set<std::vector<int64_t>> PlacesOf(const Box& box) {
  std::set<std::vector<int64_t>> places;
  if (Elements(box) == 0) return places;
  std::vector<int64_t> at = box.begin;
  while (true) {
    places.insert(at);
    size_t i = at.size();
    while (i > 0 && ++at[i - 1] == box.begin[i - 1] + box.extent[i - 1]) {
      at[i - 1] = box.begin[i - 1];
      --i;
    }
    if (i == 0) return places;
  }
}

bool IsPart(const Box& part, const Box& of) {
  const std::set<std::vector<int64_t>> all = PlacesOf(of);
  for (const auto& place : PlacesOf(part)) {
    if (!all.contains(place)) return false;
  }
  return true;
}

TEST(Boxes, OverlapAndRestMakeTheWhole) {
  Random random(1);
  for (int round = 0; round < 2000; ++round) {
    const std::vector<int64_t> shape = random.Shape();
    const Box a = random.Part(shape), b = random.Part(shape);
    ASSERT_TRUE(IsWithin(a, shape)) << ToString(a);
    const std::optional<Box> shared = Overlap(a, b);
    std::set<std::vector<int64_t>> expected;
    const std::set<std::vector<int64_t>> of_b = PlacesOf(b);
    for (const auto& place : PlacesOf(a)) {
      if (of_b.contains(place)) expected.insert(place);
    }
    ASSERT_EQ(shared.has_value(), !expected.empty()) << ToString(a) << ToString(b);
    if (!shared.has_value()) continue;
    EXPECT_EQ(PlacesOf(*shared), expected);
    size_t count = PlacesOf(*shared).size();
    for (const Box& rest : Without(a, *shared)) {
      EXPECT_TRUE(IsPart(rest, a));
      EXPECT_FALSE(Overlap(rest, *shared).has_value());
      count += PlacesOf(rest).size();
    }
    EXPECT_EQ(count, PlacesOf(a).size()) << ToString(a) << " without " << ToString(*shared);
  }
}

TEST(Boxes, ThatLeaveTheShapeAreNone) {
  EXPECT_TRUE(IsWithin({{1, 0}, {2, 3}}, {3, 3}));
  EXPECT_TRUE(IsWithin({{}, {}}, {}));
  EXPECT_FALSE(IsWithin({{2, 0}, {2, 3}}, {3, 3}));
  EXPECT_FALSE(IsWithin({{-1, 0}, {1, 3}}, {3, 3}));
  EXPECT_FALSE(IsWithin({{0}, {-1}}, {3}));
  EXPECT_FALSE(IsWithin({{0}, {3}}, {3, 3}));
  constexpr int64_t kHuge = int64_t{1} << 40;
  EXPECT_FALSE(IsWithin({{0, 0}, {kHuge, kHuge}}, {kHuge, kHuge}));
  EXPECT_FALSE(IsWithin({{INT64_MAX}, {1}}, {INT64_MAX}));
}

TEST(PlanCopies, FillsEveryWantedElementOnce) {
  Random random(2);
  for (int round = 0; round < 2000; ++round) {
    const std::vector<int64_t> shape = random.Shape();
    Layout from, to;
    from["w"] = {"F32", shape, random.Cover(shape)};
    to["w"] = {"F32", shape, random.Cover(shape)};
    const absl::StatusOr<std::vector<BoxCopy>> copies = PlanCopies(from, to);
    ASSERT_TRUE(copies.ok()) << copies.status();
    std::vector<std::multiset<std::vector<int64_t>>> filled(to["w"].pieces.size());
    for (const BoxCopy& copy : *copies) {
      EXPECT_TRUE(IsPart(copy.box, from["w"].pieces[copy.source].box));
      for (const auto& place : PlacesOf(copy.box)) filled[copy.target].insert(place);
    }
    for (size_t i = 0; i < filled.size(); ++i) {
      const std::set<std::vector<int64_t>> wanted = PlacesOf(to["w"].pieces[i].box);
      EXPECT_EQ(filled[i], std::multiset<std::vector<int64_t>>(wanted.begin(), wanted.end())) << "round " << round;
    }
  }
}

TEST(PlanCopies, MissingElementsAreNamed) {
  Random random(3);
  int refused = 0;
  for (int round = 0; round < 1000; ++round) {
    const std::vector<int64_t> shape = random.Shape();
    const std::vector<Piece> held = {{random.Part(shape), 0}, {random.Part(shape), 1}};
    std::set<std::vector<int64_t>> there = PlacesOf(held[0].box);
    there.merge(PlacesOf(held[1].box));
    const bool whole = there.size() == PlacesOf(WholeBox(shape)).size();
    const auto copies = PlanCopies({{"w", {"F32", shape, held}}}, {{"w", {"F32", shape, {{WholeBox(shape), 0}}}}});
    EXPECT_EQ(copies.ok(), whole);
    if (copies.ok()) continue;
    ++refused;
    EXPECT_TRUE(absl::IsDataLoss(copies.status()));
    EXPECT_THAT(std::string(copies.status().message()), HasSubstr("tensor 'w': nobody holds its elements ["));
  }
  EXPECT_GT(refused, 100);
}

TEST(PlanCopies, ReplicasServeDifferentTargetsAndOnesOwnComesFirst) {
  const Box whole = WholeBox({4});
  Layout from, to;
  from["w"] = {"F32", {4}, {{whole, 0}, {whole, 1}, {whole, 2}}};
  to["w"] = {"F32", {4}, {{whole, 1}, {whole, 3}, {whole, 4}}};
  const auto copies = PlanCopies(from, to);
  ASSERT_TRUE(copies.ok()) << copies.status();
  ASSERT_EQ(copies->size(), 3u);
  EXPECT_EQ((*copies)[0].source, 1u);  // the holder's own
  EXPECT_EQ((*copies)[1].source, 0u);
  EXPECT_EQ((*copies)[2].source, 1u);
}

TEST(PlanCopies, AnotherTensorIsRefused) {
  const Box whole = WholeBox({4});
  const Layout from = {{"w", {"F32", {4}, {{whole, 0}}}}};
  EXPECT_TRUE(absl::IsNotFound(PlanCopies(from, {{"v", {"F32", {4}, {{whole, 0}}}}}).status()));
  const absl::Status dtype = PlanCopies(from, {{"w", {"F16", {4}, {{whole, 0}}}}}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(dtype));
  EXPECT_THAT(std::string(dtype.message()), HasSubstr("tensor 'w': found F32 [4]; allowed: F16 [4]"));
  EXPECT_TRUE(absl::IsInvalidArgument(PlanCopies(from, {{"w", {"F32", {2, 2}, {}}}}).status()));
}

TEST(BoxesOfRange, AreTheRangeInOrder) {
  Random random(31);
  for (int round = 0; round < 500; ++round) {
    const std::vector<int64_t> shape = random.Shape();
    const int64_t all = Elements(WholeBox(shape));
    const int64_t begin = random.Below(all + 1), end = begin + random.Below(all - begin + 1);
    const std::vector<Box> boxes = BoxesOfRange(shape, begin, end);
    EXPECT_LE(boxes.size(), std::max<size_t>(2 * shape.size(), 2) - 1);
    std::vector<int64_t> places;  // of the elements in the flattened tensor, box after box
    for (const Box& box : boxes) {
      EXPECT_TRUE(IsWithin(box, shape)) << ToString(box);
      for (const std::vector<int64_t>& at : PlacesOf(box)) {
        int64_t place = 0;
        for (size_t dim = 0; dim < shape.size(); ++dim) place = place * shape[dim] + at[dim];
        places.push_back(place);
      }
    }
    ASSERT_EQ(places.size(), static_cast<size_t>(end - begin));
    for (size_t i = 0; i < places.size(); ++i) ASSERT_EQ(places[i], begin + static_cast<int64_t>(i));
  }
}

}  // namespace
}  // namespace athanor

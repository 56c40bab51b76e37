#include "athanor/checkpoint/format/read_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

namespace athanor {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kElement = 4;

// A tensor whose element i is i, and files that hold it in slices.
struct Sample {
  StoredTensor tensor;
  std::vector<std::string> files;
};

int64_t Number(const std::vector<int64_t>& shape, const std::vector<int64_t>& at) {
  int64_t number = 0;
  for (size_t i = 0; i < shape.size(); ++i) number = number * shape[i] + at[i];
  return number;
}

// The elements of a box, row by row.
std::string BytesOf(const std::vector<int64_t>& shape, const Box& box) {
  std::string bytes;
  if (Elements(box) == 0) return bytes;
  std::vector<int64_t> at = box.begin;
  while (true) {
    const auto value = static_cast<uint32_t>(Number(shape, at));
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    size_t i = at.size();
    while (i > 0 && ++at[i - 1] == box.begin[i - 1] + box.extent[i - 1]) {
      at[i - 1] = box.begin[i - 1];
      --i;
    }
    if (i == 0) return bytes;
  }
}

void AddSlice(const Box& box, int file, Sample* sample) {
  sample->files.resize(std::max(sample->files.size(), static_cast<size_t>(file) + 1));
  std::string& bytes = sample->files[static_cast<size_t>(file)];
  bytes += "between";
  const std::string content = BytesOf(sample->tensor.shape, box);
  sample->tensor.slices.push_back(
      {box, file, static_cast<int64_t>(bytes.size()), static_cast<int64_t>(content.size()), {}});
  bytes += content;
}

// Follows the plan; every byte is written once, and what is read is blocks of which every one is needed.
std::string Follow(const Sample& sample, const Box& wanted, const std::vector<RangeRead>& reads) {
  const auto size = static_cast<size_t>(Elements(wanted) * kElement);
  std::string bytes(size, '\0');
  std::vector<int> written(size, 0);
  for (const RangeRead& read : reads) {
    const StoredSlice& slice = sample.tensor.slices[read.slice];
    EXPECT_EQ(read.begin % kChecksumBytes, 0);
    EXPECT_TRUE(read.end % kChecksumBytes == 0 || read.end == slice.bytes);
    std::set<int64_t> needed;
    int64_t last = read.begin;
    for (const ByteRun& run : read.runs) {
      EXPECT_GE(run.from, last);
      last = run.from + run.bytes;
      EXPECT_LE(last, read.end);
      for (int64_t block = run.from / kChecksumBytes; block <= (last - 1) / kChecksumBytes; ++block)
        needed.insert(block);
      const std::string& file = sample.files[static_cast<size_t>(slice.file)];
      std::memcpy(bytes.data() + run.to, file.data() + slice.offset + run.from, static_cast<size_t>(run.bytes));
      for (int64_t i = 0; i < run.bytes; ++i) ++written[static_cast<size_t>(run.to + i)];
    }
    EXPECT_EQ(static_cast<int64_t>(needed.size()), (read.end - read.begin + kChecksumBytes - 1) / kChecksumBytes);
  }
  for (const int times : written) {
    if (times != 1) ADD_FAILURE() << "a byte was written " << times << " times";
  }
  return bytes;
}

Box RandomPart(const std::vector<int64_t>& shape, std::mt19937& random) {
  Box box;
  for (const int64_t extent : shape) {
    box.begin.push_back(std::uniform_int_distribution<int64_t>(0, extent)(random));
    box.extent.push_back(std::uniform_int_distribution<int64_t>(0, extent - box.begin.back())(random));
  }
  return box;
}

Sample RandomSample(const std::vector<int64_t>& shape, std::mt19937& random) {
  Sample sample;
  sample.tensor = {"U32", shape, {}};
  std::vector<Box> boxes = {WholeBox(shape)};
  for (int cuts = static_cast<int>(random() % 6); cuts > 0 && !shape.empty(); --cuts) {
    const size_t dim = random() % shape.size();
    Box& box = boxes[random() % boxes.size()];
    Box rest = box;
    const int64_t at = std::uniform_int_distribution<int64_t>(0, box.extent[dim])(random);
    box.extent[dim] = at;
    rest.begin[dim] += at;
    rest.extent[dim] -= at;
    boxes.push_back(rest);
  }
  if (random() % 2 == 0) boxes.push_back(RandomPart(shape, random));  // a replica of a part
  for (const Box& box : boxes) AddSlice(box, static_cast<int>(random() % 3), &sample);
  return sample;
}

TEST(PlanReads, GivesEveryWantedBoxFromAnySlices) {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    std::vector<int64_t> shape(random() % 4);
    for (int64_t& extent : shape) extent = static_cast<int64_t>(random() % 7);
    const Sample sample = RandomSample(shape, random);
    const Box wanted = random() % 3 == 0 ? WholeBox(shape) : RandomPart(shape, random);
    const auto reads = PlanReads({{"w", sample.tensor}}, {{"w", wanted}});
    ASSERT_TRUE(reads.ok()) << "seed " << seed << ": " << reads.status();
    ASSERT_EQ(Follow(sample, wanted, *reads), BytesOf(shape, wanted)) << "seed " << seed;
  }
}

TEST(PlanReads, ReadsTheBlocksThatHoldWantedBytesAlone) {
  const std::vector<int64_t> shape = {3000, 700};  // 8 blocks, 374.49 rows to a block
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::mt19937 random(seed);
    Sample sample;
    sample.tensor = {"U32", shape, {}};
    AddSlice({{0, 0}, {3000, 350}}, 0, &sample);
    AddSlice({{0, 350}, {3000, 350}}, 1, &sample);
    const Box wanted = seed == 0 ? Box{{1000, 3}, {1, 1}} : RandomPart(shape, random);
    const auto reads = PlanReads({{"w", sample.tensor}}, {{"w", wanted}});
    ASSERT_TRUE(reads.ok()) << reads.status();
    EXPECT_EQ(Follow(sample, wanted, *reads), BytesOf(shape, wanted));
    if (seed == 0) {
      ASSERT_EQ(reads->size(), 1u);
      EXPECT_EQ((*reads)[0].begin, kChecksumBytes);
      EXPECT_EQ((*reads)[0].end, 2 * kChecksumBytes);
    }
  }
}

TEST(PlanReads, OfAWholeTensorInOneSliceIsOneRun) {
  Sample sample;
  sample.tensor = {"U32", {5, 6, 7}, {}};
  AddSlice(WholeBox({5, 6, 7}), 0, &sample);
  const auto reads = PlanReads({{"w", sample.tensor}}, {{"w", WholeBox({5, 6, 7})}});
  ASSERT_TRUE(reads.ok()) << reads.status();
  ASSERT_EQ(reads->size(), 1u);
  EXPECT_EQ((*reads)[0].runs.size(), 1u);
  EXPECT_EQ((*reads)[0].end, 5 * 6 * 7 * kElement);
}

TEST(PlanReads, WhatIsNotThereIsNamed) {
  Sample sample;
  sample.tensor = {"U32", {4, 4}, {}};
  AddSlice({{0, 0}, {2, 4}}, 0, &sample);
  const StoredTensors stored = {{"w", sample.tensor}};
  EXPECT_TRUE(absl::IsNotFound(PlanReads(stored, {{"v", WholeBox({4, 4})}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(PlanReads(stored, {{"w", {{3, 0}, {2, 4}}}}).status()));
  const absl::Status missing = PlanReads(stored, {{"w", WholeBox({4, 4})}}).status();
  EXPECT_TRUE(absl::IsDataLoss(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("[2:4, 0:4]"));
  StoredTensors torn = stored;
  torn["w"].slices[0].bytes -= 1;
  EXPECT_THAT(std::string(PlanReads(torn, {{"w", {{0, 0}, {1, 1}}}}).status().message()),
              HasSubstr("found 31 bytes for 8 elements"));
}

}  // namespace
}  // namespace athanor

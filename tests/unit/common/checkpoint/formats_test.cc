// Checkpoints of every format that is read, and what format 2 can do: parts of tensors, on any number of ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/checkpoint/file_checkpoint_manager.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/local_committer.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kStep = 7;

// What the golden files were made of.
TrainingState GoldenState(int rank) {
  const auto range = [](int64_t count) { return torch::arange(count, torch::kFloat); };
  TrainingState state;
  state.replicated["model.0.weight"] = range(24).reshape({4, 6}) * 0.5F;
  state.replicated["model.0.bias"] = range(4) - 2;
  state.replicated["model.transposed"] = range(12).reshape({3, 4}).t();
  state.replicated["model.half"] = range(5).to(torch::kHalf);
  state.replicated["model.bf16"] = range(7).to(torch::kBFloat16);
  state.replicated["model.fp8"] = torch::arange(9, torch::kByte).view(torch::kFloat8_e4m3fn);
  state.replicated["model.count"] = torch::tensor(int64_t{42});
  state.replicated["model.empty"] = torch::zeros({0, 3});
  state.replicated["model.flags"] = torch::tensor({1, 0, 1}).to(torch::kBool);
  state.replicated["model.complex"] = torch::complex(range(3), range(3) + 1);
  state.replicated["optim.0.weight.exp_avg"] = range(24).reshape({4, 6}) / 3;
  state.replicated["optim.0.weight.step"] = torch::tensor(7.0F);
  state.replicated["ema.0.weight"] = range(24).reshape({4, 6}) + 0.25F;
  state.per_rank["rng.cpu"] = torch::arange(16, torch::kByte) + rank;
  state.per_rank["metrics.accuracy"] = torch::full({2}, rank + 0.5);
  state.meta = {{"config", {{"steps", 7}}}, {"train", {{"step", 7}}}, {"note", "ä ∑"}};
  state.rank_meta = {{"loader", {{"position", 11 * rank + 3}}}};
  return state;
}

bool Same(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const torch::Tensor left = a.contiguous(), right = b.contiguous();
  return std::memcmp(left.data_ptr(), right.data_ptr(), left.nbytes()) == 0;
}

void ExpectSame(const TensorMap& found, const TensorMap& wanted) {
  EXPECT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(Same(found.at(name), tensor)) << name << ": " << found.at(name);
  }
}

void ExpectGolden(const ResumeCandidate& candidate, int written_by) {
  for (const int world : {1, 2, 3}) {
    for (int rank = 0; rank < world; ++rank) {
      const absl::StatusOr<RestoredState> restored = ReadCheckpoint(candidate, rank, world);
      ASSERT_TRUE(restored.ok()) << restored.status();
      const TrainingState wanted = GoldenState(rank);
      ExpectSame(restored->state.replicated, wanted.replicated);
      EXPECT_EQ(restored->state.meta, wanted.meta);
      EXPECT_EQ(restored->world_size, written_by);
      EXPECT_EQ(restored->same_world, world == written_by);
      EXPECT_EQ(restored->metrics.at("val.loss"), 0.25);
      ExpectSame(restored->state.per_rank, restored->same_world ? wanted.per_rank : TensorMap());
      EXPECT_EQ(restored->state.rank_meta, restored->same_world ? wanted.rank_meta : nlohmann::json());
    }
  }
}

class FormatsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-formats-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  // Every rank saves its state at once.
  ResumeCandidate Save(int world, const std::function<TrainingState(int rank)>& state_of, int64_t step = kStep) {
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < world; ++rank) {
      ranks.emplace_back([&, rank] {
        LocalCommitter committer(root_, rank, world, absl::Seconds(20), "test");
        auto manager = FileCheckpointManager::Create({.root = root_, .rank = rank, .world_size = world}, &committer);
        ASSERT_TRUE(manager.ok()) << manager.status();
        ASSERT_TRUE(
            (*manager)->Save(state_of(rank), {.step = step, .metrics = {{"val.loss", 0.25}}, .must_wait = true}).ok());
        const absl::Status saved = (*manager)->Wait(absl::Seconds(20));
        EXPECT_TRUE(saved.ok()) << saved;
      });
    }
    for (std::thread& rank : ranks) rank.join();
    return {.step = step, .path = absl::StrCat(root_, "/", CheckpointDirName(step))};
  }
  std::vector<std::string> Shards(const ResumeCandidate& candidate) const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(candidate.path)) {
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  std::string root_;
};

TEST_F(FormatsTest, Format1IsRead) {
  for (const int world : {1, 2, 3}) {
    const std::string root = absl::StrCat(ATHANOR_SOURCE_DIR, "/tests/data/checkpoints/format1/world-", world);
    const absl::StatusOr<ResumeCandidate> latest = CandidateAt(root + "/latest");
    ASSERT_TRUE(latest.ok()) << latest.status();
    const absl::StatusOr<Manifest> manifest = ReadManifest(latest->path);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    EXPECT_EQ(manifest->format, 1);
    ExpectGolden(*latest, world);
  }
}

TEST_F(FormatsTest, Format1DamagedIsNoticed) {
  const std::string golden = absl::StrCat(ATHANOR_SOURCE_DIR, "/tests/data/checkpoints/format1/world-2");
  std::filesystem::copy(golden, root_, std::filesystem::copy_options::recursive);
  const ResumeCandidate candidate = {.step = kStep, .path = root_ + "/" + CheckpointDirName(kStep)};
  const std::string shard = Shards(candidate)[1];
  std::string bytes(std::filesystem::file_size(shard), '\0');
  std::ifstream(shard, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  for (size_t at = 0; at < bytes.size(); at += 13) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    std::ofstream(shard, std::ios::binary) << damaged;
    EXPECT_TRUE(absl::IsDataLoss(ReadCheckpoint(candidate, 1, 2).status())) << "byte " << at;
  }
}

TEST_F(FormatsTest, Format2HoldsTheSame) {
  for (const int world : {1, 2, 3}) {
    const ResumeCandidate candidate = Save(world, GoldenState, 100 * world + kStep);
    const absl::StatusOr<Manifest> manifest = ReadManifest(candidate.path);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    EXPECT_EQ(manifest->format, 2);
    EXPECT_EQ(manifest->tensors.at("model.0.weight").dtype, "F32");
    EXPECT_EQ(manifest->tensors.at("model.0.weight").shape, (std::vector<int64_t>{4, 6}));
    ExpectGolden(candidate, world);
  }
}

TEST_F(FormatsTest, EveryDamagedByteThatIsReadIsNoticed) {
  const ResumeCandidate candidate = Save(2, GoldenState);
  int noticed = 0;
  for (const std::string& shard : Shards(candidate)) {
    std::string bytes(std::filesystem::file_size(shard), '\0');
    std::ifstream(shard, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    for (size_t at = 0; at < bytes.size(); at += 11) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ 4);
      std::ofstream(shard, std::ios::binary) << damaged;
      // Either rank alone may miss what only the other one reads; together they read all.
      const absl::Status zero = ReadCheckpoint(candidate, 0, 2).status(),
                         one = ReadCheckpoint(candidate, 1, 2).status();
      EXPECT_TRUE(absl::IsDataLoss(zero) || absl::IsDataLoss(one)) << shard << ", byte " << at;
      for (const absl::Status& status : {zero, one}) {
        if (status.ok()) continue;
        ++noticed;
        EXPECT_THAT(std::string(status.message()), HasSubstr(shard));
      }
    }
    std::ofstream(shard, std::ios::binary) << bytes;
  }
  EXPECT_GT(noticed, 100);
  EXPECT_TRUE(ReadCheckpoint(candidate, 0, 2).ok());
}

TEST_F(FormatsTest, TiedWeightsAreStoredOnceAndStayTied) {
  const torch::Tensor weight = torch::rand({64, 32});
  for (const int world : {1, 2}) {
    const ResumeCandidate candidate = Save(
        world,
        [&](int) {
          TrainingState state;
          state.replicated = {
              {"model.embedding", weight}, {"model.head", weight.detach()}, {"model.other", weight.clone()}};
          state.meta = nlohmann::json::object();
          return state;
        },
        world);
    int64_t bytes = 0;
    for (const std::string& shard : Shards(candidate)) bytes += static_cast<int64_t>(std::filesystem::file_size(shard));
    EXPECT_LT(bytes, 2 * static_cast<int64_t>(weight.nbytes()) + 4096);
    const absl::StatusOr<RestoredState> restored = ReadCheckpoint(candidate, 0, 1);
    ASSERT_TRUE(restored.ok()) << restored.status();
    const TensorMap& tensors = restored->state.replicated;
    EXPECT_EQ(tensors.at("model.embedding").data_ptr(), tensors.at("model.head").data_ptr());
    EXPECT_NE(tensors.at("model.embedding").data_ptr(), tensors.at("model.other").data_ptr());
    for (const char* name : {"model.embedding", "model.head", "model.other"})
      EXPECT_TRUE(Same(tensors.at(name), weight)) << name;
  }
}

// A tensor that three ranks have by rows, and one that they have by columns.
TEST_F(FormatsTest, PartsBecomeWholeAndOtherParts) {
  const torch::Tensor rows = torch::rand({700, 900}), columns = torch::rand({5, 6, 7});
  const ResumeCandidate candidate = Save(3, [&](int rank) {
    TrainingState state;
    const int64_t first = rank == 0 ? 0 : 100 + 250 * rank, count = rank == 0 ? 350 : rank == 1 ? 250 : 100;
    state.sharded["optim.rows"] = {{700, 900}, {{rows.narrow(0, first, count), {first, 0}}}, {}};
    state.sharded["optim.columns"] = {{5, 6, 7}, {{columns.narrow(1, 2 * rank, 2), {0, 2 * rank, 0}}}, {}};
    state.replicated["model.w"] = torch::ones({3});
    state.meta = nlohmann::json::object();
    return state;
  });
  const absl::StatusOr<RestoredState> restored = ReadCheckpoint(candidate, 0, 1);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(Same(restored->state.replicated.at("optim.rows"), rows));
  EXPECT_TRUE(Same(restored->state.replicated.at("optim.columns"), columns));
  // Two ranks, and the other dimension.
  for (const int64_t half : {0, 1}) {
    const auto parts = ReadCheckpointBoxes(
        candidate, {{"optim.rows", {{0, 450 * half}, {700, 450}}}, {"optim.columns", {{1, 0, 3}, {3, 6, 2}}}});
    ASSERT_TRUE(parts.ok()) << parts.status();
    EXPECT_TRUE(Same((*parts)[0], rows.narrow(1, 450 * half, 450)));
    EXPECT_TRUE(Same((*parts)[1], columns.narrow(0, 1, 3).narrow(2, 3, 2)));
  }
}

// Ranges of the flattened tensor, which are several boxes each; one of the ranks has none.
TEST_F(FormatsTest, RangesAreSeveralPartsOfARank) {
  const torch::Tensor cube = torch::rand({5, 6, 7});
  const std::vector<int64_t> ends = {0, 101, 101, 210};
  const ResumeCandidate candidate = Save(3, [&](int rank) {
    TrainingState state;
    ShardedTensor& sharded = state.sharded["model.cube"];
    sharded = {{5, 6, 7}, {}, {"model.cube.twin"}};
    int64_t at = ends[rank];
    for (const Box& box : BoxesOfRange(sharded.shape, ends[rank], ends[rank + 1])) {
      const torch::Tensor values = cube.flatten().narrow(0, at, Elements(box)).view(box.extent);
      sharded.parts.push_back({values, box.begin});
      at += Elements(box);
    }
    state.sharded["model.bias"] = {{}, {}, {}};
    if (rank == 1) state.sharded["model.bias"].parts.push_back({torch::tensor(4.5), {}});
    state.meta = nlohmann::json::object();
    return state;
  });
  const absl::StatusOr<RestoredState> restored = ReadCheckpoint(candidate, 0, 1);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(Same(restored->state.replicated.at("model.cube"), cube));
  EXPECT_TRUE(Same(restored->state.replicated.at("model.cube.twin"), cube));
  EXPECT_TRUE(Same(restored->state.replicated.at("model.bias"), torch::tensor(4.5)));
  EXPECT_EQ(restored->state.replicated.size(), 3u);
  // Only what a rank of another number of ranks wants.
  const auto parts = ReadCheckpoint(candidate, 1, 2, {}, {}, [](const std::string& name, const auto& shape) {
    std::optional<std::vector<Box>> boxes;
    if (name == "model.cube") boxes = BoxesOfRange(shape, 50, 180);
    if (name == "model.cube.twin") boxes.emplace();
    return boxes;
  });
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->state.replicated.size(), 1u);
  ASSERT_EQ(parts->state.sharded.size(), 1u);
  std::vector<torch::Tensor> flat;
  for (const TensorPart& part : parts->state.sharded.at("model.cube").parts) flat.push_back(part.values.flatten());
  EXPECT_TRUE(Same(torch::cat(flat), cube.flatten().narrow(0, 50, 130)));
}

TEST_F(FormatsTest, ReplicasWriteAPartOnce) {
  const torch::Tensor left = torch::rand({300, 100}), right = torch::rand({300, 100});
  const ResumeCandidate candidate = Save(4, [&](int rank) {
    TrainingState state;
    state.replicas = 4;
    state.replica = rank;
    state.sharded["model.w"] = {{300, 200}, {{left, {0, 0}}, {right, {0, 100}}}, {}};
    state.sharded["optim.w"] = {{300, 200}, {{right, {0, 0}}, {left, {0, 100}}}, {}};
    state.meta = nlohmann::json::object();
    return state;
  });
  const absl::StatusOr<RestoredState> restored = ReadCheckpoint(candidate, 0, 1);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(Same(restored->state.replicated.at("model.w"), torch::cat({left, right}, 1)));
  EXPECT_TRUE(Same(restored->state.replicated.at("optim.w"), torch::cat({right, left}, 1)));
  for (const std::string& shard : Shards(candidate))
    EXPECT_LT(std::filesystem::file_size(shard), left.nbytes() + 4096) << shard;
}

TEST_F(FormatsTest, PartsThatLeaveAHoleAreNoCheckpoint) {
  LocalCommitter committer(root_, 0, 1);
  const auto manager = FileCheckpointManager::Create({.root = root_}, &committer);
  ASSERT_TRUE(manager.ok());
  TrainingState state;
  state.sharded["optim.w"] = {{4, 2}, {{torch::ones({2, 2}), {2, 0}}}, {}};
  ASSERT_TRUE((*manager)->Save(state, {.step = 1}).ok());
  const absl::Status saved = (*manager)->Wait(absl::Seconds(20));
  EXPECT_TRUE(absl::IsDataLoss(saved)) << saved;
  EXPECT_THAT(std::string(saved.message()), HasSubstr("tensor 'optim.w': nobody holds its elements [0:2, 0:2]"));
  EXPECT_TRUE(ListCheckpoints(root_)->empty());
}

TEST_F(FormatsTest, OnlyTheBlocksThatHoldAPartAreRead) {
  const torch::Tensor large = torch::rand({4096, 1024});  // 16 blocks
  const ResumeCandidate candidate = Save(1, [&](int) {
    TrainingState state;
    state.replicated = {{"model.large", large}, {"optim.large", large.clone()}};
    state.meta = nlohmann::json::object();
    return state;
  });
  int64_t read = 0;
  const ProgressCallback count = [&](const char*, int64_t bytes) { read += bytes; };
  const auto part = ReadCheckpointBoxes(candidate, {{"model.large", {{1000, 5}, {2, 3}}}}, count);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_TRUE(Same((*part)[0], large.narrow(0, 1000, 2).narrow(1, 5, 3)));
  EXPECT_EQ(read, kChecksumBytes);
  read = 0;
  const auto weights = ReadCheckpoint(candidate, 0, 1, count, [](const std::string& name) { return name[0] == 'm'; });
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->state.replicated.size(), 1u);
  EXPECT_EQ(read, static_cast<int64_t>(large.nbytes()));
  // Damage elsewhere does not matter to those who read there.
  const std::string shard = Shards(candidate)[0];
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.get());
  file.seekp(-1, std::ios::end);
  file.put(static_cast<char>(last ^ 1)).flush();
  EXPECT_TRUE(ReadCheckpointBoxes(candidate, {{"model.large", {{1000, 5}, {2, 3}}}}).ok());
  EXPECT_TRUE(absl::IsDataLoss(ReadCheckpoint(candidate, 0, 1).status()));
}

TEST_F(FormatsTest, APartOutsideOfItsTensorIsRefused) {
  LocalCommitter committer(root_, 0, 1);
  const auto manager = FileCheckpointManager::Create({.root = root_}, &committer);
  ASSERT_TRUE(manager.ok());
  TrainingState state;
  state.sharded["optim.w"] = {{4, 2}, {{torch::ones({3, 2}), {2, 0}}}, {}};
  const absl::Status saved = (*manager)->Save(state, {.step = 1});
  EXPECT_TRUE(absl::IsInvalidArgument(saved)) << saved;
  EXPECT_THAT(std::string(saved.message()), HasSubstr("the part of 'optim.w' lies outside of its shape"));
}

}  // namespace
}  // namespace athanor

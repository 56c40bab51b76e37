// Real processes, killed with SIGKILL in the middle of training, started again from what they have left on disk: the
// end is the same as that of an undisturbed run, bit for bit. Dropout, batch norm, shuffling, accumulation, schedule
// and moving average are on.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;

// Votes through the generation's store.
class StoreCommitter : public CheckpointCommitter {
 public:
  StoreCommitter(int port, int world_size) : world_size_(world_size) {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(20000);
    store_ = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  }
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard) override {
    std::vector<ShardInfo> all;
    const absl::Status status = RunTorch("vote", [&] {
      store_->set(Key(step, shard.rank), Bytes(absl::StrCat(shard.file, " ", shard.bytes, " ", shard.crc32c)));
      for (int rank = 0; shard.rank == 0 && rank < world_size_; ++rank) {
        ShardInfo info;
        info.rank = rank;
        std::istringstream(store_->get_to_str(Key(step, rank))) >> info.file >> info.bytes >> info.crc32c;
        all.push_back(info);
      }
    });
    if (!status.ok()) return status;
    return all;
  }
  absl::Status CommitManifest(const ManifestSummary&) override { return absl::OkStatus(); }
  absl::Status ReportEvaluation(const EvaluationSummary&) override { return absl::OkStatus(); }
  void Abandon(int64_t, const std::string&) override {}
  void ReportDamage(int64_t step, const std::string& reason) override {
    ADD_FAILURE() << "step " << step << ": " << reason;
  }
  bool OwnsRetention() const override { return true; }

 private:
  static std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }
  static std::string Key(int64_t step, int rank) { return absl::StrCat("vote/", step, "/", rank); }
  int world_size_;
  c10::intrusive_ptr<c10d::TCPStore> store_;
};

class KillingHooks : public RunnerHooks {
 public:
  explicit KillingHooks(int64_t kill_at) : kill_at_(kill_at) {}
  void OnProgress(const ProgressReport& progress) override {
    if (progress.phase == RunnerPhase::kTraining && progress.step == kill_at_) raise(SIGKILL);
  }

 private:
  int64_t kill_at_;
};

std::vector<ResumeCandidate> Complete(const std::string& root) {
  std::vector<ResumeCandidate> found;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename();
    if (name.rfind("step-", 0) == 0 && fs::exists(entry.path() / "manifest.json")) {
      found.push_back({std::stoll(name.substr(5)), entry.path().string(), false});
    }
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

// The life of one rank; never returns.
[[noreturn]] void RankProcess(int world, int rank, int port, const std::string& root,
                              const std::vector<ResumeCandidate>& candidates, int64_t kill_at) {
  std::unique_ptr<ProcessGroup> group;
  if (world > 1) {
    auto joined = ProcessGroup::Create(
        {.rank = rank, .world_size = world, .store_port = port, .prefix = "group", .timeout = absl::Seconds(20)});
    if (!joined.ok()) _exit(14);
    group = *std::move(joined);
  }
  auto net = std::make_shared<TestNet>();
  StoreCommitter committer(port, world);
  KillingHooks hooks(kill_at);
  TorchRunnerOptions options;
  options.model = net;
  options.datasets = {{"train", TestData(100, 1)}, {"val", TestData(37, 2)}};
  options.forward = [net](const Batch& batch) {
    return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
  };
  options.members = group.get();
  options.hooks = &hooks;
  options.committer = &committer;
  options.checkpoint_root = root;
  options.resume_candidates = candidates;
  auto runner = TorchRunner::Create(TestConfig({{"steps", 40},
                                                {"accum_steps", 2},
                                                {"max_grad_norm", 1.0},
                                                {"ema", {{"enabled", true}}},
                                                {"checkpoint", {{"interval", 3}}},
                                                {"evaluate", {{"interval", 9}}}}),
                                    std::move(options));
  if (!runner.ok()) _exit(16);
  const auto result = (*runner)->Train();
  if (!result.ok()) {
    fprintf(stderr, "rank %d: %s\n", rank, std::string(result.status().message()).c_str());
    _exit(FailureKindOf(result.status()) == FailureKind::kPeerLost ? 14 : 18);
  }
  _exit(0);
}

// Runs one generation to its end; true when every rank has finished.
bool Generation(int world, const std::string& root, int victim, int64_t kill_at) {
  auto store = HostStore::Create({});
  EXPECT_TRUE(store.ok()) << store.status();
  const auto candidates = Complete(root);
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < world; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) RankProcess(world, rank, (*store)->port(), root, candidates, rank == victim ? kill_at : -1);
    ranks.push_back(pid);
  }
  bool finished = true;
  for (const pid_t pid : ranks) {
    int status = 0;
    waitpid(pid, &status, 0);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    EXPECT_TRUE(killed || (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 14))) << status;
    finished &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return finished;
}

std::map<std::string, torch::Tensor> FinalState(const std::string& root) {
  CheckpointManagerOptions options;
  options.root = root;
  LedgerCommitter committer(nullptr);
  auto manager = FileCheckpointManager::Create(options, &committer);
  EXPECT_TRUE(manager.ok()) << manager.status();
  const auto candidates = Complete(root);
  EXPECT_FALSE(candidates.empty());
  auto restored = (*manager)->Read(candidates.front());
  EXPECT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->step, 40);
  return restored->state.replicated;
}

class ExactResumeTest : public ::testing::TestWithParam<int> {};

TEST_P(ExactResumeTest, KilledRunEndsAsTheUndisturbedOne) {
  const int world = GetParam();
  TestFolder undisturbed;
  ASSERT_TRUE(Generation(world, undisturbed.path(), -1, -1));
  const auto expected = FinalState(undisturbed.path());
  ASSERT_GT(expected.count("optim.first.weight.exp_avg") + expected.count("ema.first.weight"), 0u);
  for (int64_t kill_at : {1, 4, 8, 21, 39}) {
    TestFolder folder;
    EXPECT_FALSE(Generation(world, folder.path(), static_cast<int>(kill_at) % world, kill_at));
    EXPECT_FALSE(Generation(world, folder.path(), 0, std::min<int64_t>(kill_at + 5, 39)));
    ASSERT_TRUE(Generation(world, folder.path(), -1, -1));
    const auto state = FinalState(folder.path());
    ASSERT_EQ(state.size(), expected.size());
    for (const auto& [name, tensor] : expected)
      EXPECT_TRUE(torch::equal(tensor, state.at(name))) << name << ", killed at " << kill_at;
  }
}

INSTANTIATE_TEST_SUITE_P(Worlds, ExactResumeTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace athanor

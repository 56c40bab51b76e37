// A small problem, a way to train it on several ranks (threads, each with its own process group), and a committer that
// counts.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "athanor/checkpoint/file_checkpoint_manager.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/runner/torch_runner.h"
#include "athanor/torch/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {

// Votes of all ranks meet here: what a coordinator's ledger does for a job.
class SharedLedger {
 public:
  explicit SharedLedger(int world_size) : world_size_(world_size) {}
  // So many votes make a checkpoint from now on.
  void Expect(int world_size) {
    std::lock_guard<std::mutex> lock(mutex_);
    world_size_ = world_size;
  }
  std::vector<int64_t> committed() {
    std::lock_guard<std::mutex> lock(mutex_);
    return committed_;
  }
  std::vector<ManifestSummary> manifests() {
    std::lock_guard<std::mutex> lock(mutex_);
    return manifests_;
  }
  std::vector<int64_t> damaged() {
    std::lock_guard<std::mutex> lock(mutex_);
    return damaged_;
  }

 private:
  friend class LedgerCommitter;
  int world_size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, std::map<int, ShardInfo>> votes_;
  std::vector<int64_t> committed_, damaged_;
  std::vector<ManifestSummary> manifests_;
};

class LedgerCommitter : public CheckpointCommitter {
 public:
  explicit LedgerCommitter(SharedLedger* ledger) : ledger_(ledger) {}
  absl::StatusOr<std::vector<ShardInfo>> CommitShard(int64_t step, const ShardInfo& shard) override {
    std::unique_lock<std::mutex> lock(ledger_->mutex_);
    auto& votes = ledger_->votes_[step];
    votes[shard.rank] = shard;
    ledger_->changed_.notify_all();
    std::vector<ShardInfo> all;
    if (shard.rank != 0) return all;
    const bool complete = ledger_->changed_.wait_for(
        lock, std::chrono::seconds(20), [&] { return static_cast<int>(votes.size()) == ledger_->world_size_; });
    if (!complete) return absl::DeadlineExceededError("a rank did not vote");
    for (const auto& [rank, vote] : votes) all.push_back(vote);
    return all;
  }
  absl::Status CommitManifest(const ManifestSummary& summary) override {
    std::lock_guard<std::mutex> lock(ledger_->mutex_);
    ledger_->committed_.push_back(summary.step);
    ledger_->manifests_.push_back(summary);
    return absl::OkStatus();
  }
  absl::Status ReportEvaluation(const EvaluationSummary& summary) override {
    std::lock_guard<std::mutex> lock(ledger_->mutex_);
    for (ManifestSummary& manifest : ledger_->manifests_) {
      if (manifest.step != summary.step) continue;
      manifest.metrics = summary.metrics;
      manifest.is_best = summary.is_best;
      return absl::OkStatus();
    }
    return absl::NotFoundError("an evaluation of a step that is not committed");
  }
  void Abandon(int64_t, const std::string&) override {}
  void ReportDamage(int64_t step, const std::string&) override {
    std::lock_guard<std::mutex> lock(ledger_->mutex_);
    ledger_->damaged_.push_back(step);
  }
  bool OwnsRetention() const override { return true; }

 private:
  SharedLedger* ledger_;
};

// Two layers with dropout (random states matter) and batch norm (buffers matter).
struct TestNet : torch::nn::Module {
  explicit TestNet(double dropout = 0.3, bool with_norm = true) : norm_used(with_norm) {
    first = register_module("first", torch::nn::Linear(6, 16));
    if (with_norm) norm = register_module("norm", torch::nn::BatchNorm1d(16));
    drop = register_module("drop", torch::nn::Dropout(dropout));
    second = register_module("second", torch::nn::Linear(16, 3));
    torch::NoGradGuard no_grad;
    at::Generator generator = at::detail::createCPUGenerator(11);
    for (torch::Tensor& parameter : parameters()) parameter.copy_(torch::randn(parameter.sizes(), generator) * 0.3);
  }
  torch::Tensor forward(const torch::Tensor& x) {
    torch::Tensor hidden = first(x);
    if (norm_used) hidden = norm(hidden);
    return second(drop(torch::relu(hidden)));
  }
  bool norm_used;
  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
};

inline std::shared_ptr<Dataset> TestData(int64_t samples, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  torch::Tensor input = torch::randn({samples, 6}, generator);
  torch::Tensor target = (input.sum(1) > 0).to(torch::kInt64) + (input.select(1, 0) > 0.5).to(torch::kInt64);
  return *TensorDataset::Make(input, target);
}

inline RunnerConfig TestConfig(const nlohmann::json& changes = nlohmann::json::object()) {
  nlohmann::json json = {{"seed", 7},
                         {"steps", 30},
                         {"threads", 1},
                         {"log_interval", 5},
                         {"optim", {{"type", "adamw"}, {"lr", 0.01}}},
                         {"sched", {{"type", "cosine"}}},
                         {"dataloader", {{"batch_size", 8}}},
                         {"checkpoint", {{"interval", 10}, {"keep_latest_k", 0}}}};
  json.merge_patch(changes);
  RunnerConfig config;
  const auto problems = CheckRunnerConfig(json, &config);
  EXPECT_TRUE(problems.empty()) << ToStatus(problems);
  return config;
}

struct RunSpec {
  RunnerConfig config = TestConfig();
  int world_size = 1;
  std::string root;  // of checkpoints; empty: none
  std::vector<ResumeCandidate> candidates;
  std::shared_ptr<SharedLedger> ledger;  // made when missing
  int64_t stop_at_step = -1;             // rank `stop_rank` votes to stop once it has seen this step
  int stop_rank = 0;
  double dropout = 0.3;
  bool with_norm = true;
  bool shared_memory = true;
  int64_t samples = 100;
  std::shared_ptr<Dataset> train;  // in place of these samples
  std::function<void(int rank, TestNet*)> before_forward;
  std::shared_ptr<DeviceGraphs> graphs;
  std::function<void(int rank, const Batch&, StepOutput*)> change_output;
};

struct RankRun {
  absl::StatusOr<RunResult> result = absl::UnknownError("not run");
  std::map<std::string, torch::Tensor> model;
  std::vector<ProgressReport> reports;
  int64_t step_replays = 0, update_replays = 0;
};

class RecordingHooks : public RunnerHooks {
 public:
  RecordingHooks(int64_t stop_at, std::vector<ProgressReport>* reports) : stop_at_(stop_at), reports_(reports) {}
  void OnProgress(const ProgressReport& progress) override {
    reports_->push_back(progress);
    if (stop_at_ >= 0 && progress.step >= stop_at_) stop_ = true;
  }
  bool StopRequested() const override { return stop_; }

 private:
  const int64_t stop_at_;
  std::vector<ProgressReport>* reports_;
  bool stop_ = false;
};

inline void TrainRank(const RunSpec& spec, ProcessGroup* group, SharedLedger* ledger, RankRun* out) {
  const int rank = group == nullptr ? 0 : group->rank();
  auto net = std::make_shared<TestNet>(spec.dropout, spec.with_norm);
  RecordingHooks hooks(rank == spec.stop_rank ? spec.stop_at_step : -1, &out->reports);
  LedgerCommitter committer(ledger);
  TorchRunnerOptions options;
  options.model = net;
  options.datasets = {{"train", spec.train == nullptr ? TestData(spec.samples, 1) : spec.train},
                      {"val", TestData(37, 2)}};
  options.forward = [&, net](const Batch& batch) {
    if (spec.before_forward) spec.before_forward(rank, net.get());
    torch::Tensor logits = net->forward(batch.input);
    StepOutput output{torch::nn::functional::cross_entropy(logits, batch.target),
                      {{"accuracy", (logits.argmax(1) == batch.target).to(torch::kFloat).mean()}}};
    if (spec.change_output) spec.change_output(rank, batch, &output);
    return output;
  };
  options.members = group;
  options.hooks = &hooks;
  if (!spec.root.empty()) options.committer = &committer;
  options.checkpoint_root = spec.root;
  options.resume_candidates = spec.candidates;
  options.graphs = spec.graphs;
  options.workspace_from_config = false;
  auto runner = TorchRunner::Create(spec.config, std::move(options));
  if (!runner.ok()) {
    out->result = runner.status();
    return;
  }
  out->result = (*runner)->Train();
  out->step_replays = (*runner)->step_replays();
  out->update_replays = (*runner)->update_replays();
  // The parts of a divided model come together only when all ranks are there.
  if (!out->result.ok() && spec.config.stack == "parallel") return;
  const auto weights = (*runner)->Weights();
  EXPECT_TRUE(weights.ok()) << weights.status();
  if (weights.ok()) out->model = *weights;
}

// One RankRun per rank. Threads share the process's default generator, so runs with dropout and several ranks go
// through TrainForked().
inline std::vector<RankRun> TrainAll(RunSpec spec) {
  if (spec.ledger == nullptr) spec.ledger = std::make_shared<SharedLedger>(spec.world_size);
  std::vector<RankRun> runs(spec.world_size);
  if (spec.world_size == 1) {
    TrainRank(spec, nullptr, spec.ledger.get(), &runs[0]);
  } else {
    RunRanks(spec.world_size, spec.shared_memory,
             [&](ProcessGroup* group) { TrainRank(spec, group, spec.ledger.get(), &runs[group->rank()]); });
  }
  return runs;
}

inline void ExpectSameModel(const std::map<std::string, torch::Tensor>& a,
                            const std::map<std::string, torch::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(torch::equal(tensor, b.at(name))) << name;
}

// A folder that goes away with its test.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-runner-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  ResumeCandidate At(int64_t step) const {
    char name[64];
    std::snprintf(name, sizeof(name), "/step-%012lld", static_cast<long long>(step));
    return {step, path_ + name, false};
  }

 private:
  std::string path_;
};

}  // namespace athanor

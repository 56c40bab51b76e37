// A model divided over the ranks trains as one that every rank has whole, and its checkpoints go on anywhere.
#include "athanor/checkpoint/checkpoint_reader.h"
#include "tests/unit/common/runner/run_fixture.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;
using json = nlohmann::json;

// Of a mesh and a level; the small net is two units and a root.
json Divided(const std::string& shard, const json& axes) {
  return {{"stack", "parallel"},
          {"parallel", {{"axes", axes}}},
          {"fsdp", {{"shard", shard}, {"units", {"first", "second"}}}}};
}

json With(json base, const json& changes) {
  base.merge_patch(changes);
  return base;
}

RunSpec Spec(int ranks, const json& changes) {
  RunSpec spec;
  spec.world_size = ranks;
  spec.dropout = 0;
  spec.with_norm = false;  // statistics of a batch are each rank's own
  // Not in the background: a save is left out while another one is written.
  spec.config = TestConfig(With({{"checkpoint", {{"interval", 0}, {"async_enabled", false}}}}, changes));
  return spec;
}

std::vector<RankRun> Trained(const RunSpec& spec) {
  std::vector<RankRun> runs = TrainAll(spec);
  for (const RankRun& run : runs) EXPECT_TRUE(run.result.ok()) << run.result.status();
  return runs;
}

void ExpectNear(const RankRun& run, const RankRun& wanted, double tolerance) {
  ASSERT_TRUE(run.result.ok() && wanted.result.ok());
  ASSERT_EQ(run.model.size(), wanted.model.size());
  for (const auto& [name, tensor] : wanted.model) {
    const torch::Tensor found = run.model.at(name).to(torch::kDouble);
    EXPECT_TRUE(torch::allclose(found, tensor.to(torch::kDouble), tolerance, tolerance))
        << name << ": " << (found - tensor).abs().max().item<double>();
  }
  for (const auto& [name, value] : wanted.result->metrics)
    EXPECT_NEAR(run.result->metrics.at(name), value, 10 * tolerance + 1e-6 * std::abs(value)) << name;
}

struct Case {
  int ranks;
  std::string shard;
  json axes;
};

class ShardedRun : public testing::TestWithParam<Case> {
 protected:
  json Config() const { return Divided(GetParam().shard, GetParam().axes); }
};

INSTANTIATE_TEST_SUITE_P(Meshes, ShardedRun,
                         testing::Values(Case{2, "parameters", {{"shard", 2}}}, Case{4, "parameters", {{"shard", -1}}},
                                         Case{4, "parameters", {{"replicate", 2}, {"shard", 2}}},
                                         Case{2, "gradients", {{"shard", -1}}},
                                         Case{4, "gradients", {{"replicate", -1}, {"shard", 2}}},
                                         Case{2, "optimizer", {{"shard", 2}}}, Case{4, "optimizer", {{"shard", 4}}}),
                         [](const auto& info) {
                           return info.param.shard + std::to_string(info.param.ranks) +
                                  (info.param.axes.contains("replicate") ? "hybrid" : "");
                         });

TEST_P(ShardedRun, TrainsAsReplicasDo) {
  const json all = {{"max_grad_norm", 0.4},
                    {"skip_nonfinite_grad", true},
                    {"accum_steps", 2},
                    {"ema", {{"enabled", true}, {"decay", 0.9}}}};
  const int ranks = GetParam().ranks;
  const std::vector<RankRun> replicas = Trained(Spec(ranks, all));
  const std::vector<RankRun> parts = Trained(Spec(ranks, With(all, Config())));
  for (int rank = 0; rank < ranks; ++rank) ExpectNear(parts[rank], replicas[0], 2e-6);
}

TEST_P(ShardedRun, TrainsAsOneProcessDoes) {
  const int ranks = GetParam().ranks;
  const json loader = {{"dataloader", {{"shuffle", false}, {"batch_size", 24 / ranks}}}, {"steps", 12}};
  RunSpec one = Spec(1, With(loader, {{"dataloader", {{"batch_size", 24}}}})),
          several = Spec(ranks, With(loader, Config()));
  one.samples = several.samples = 96;
  const RankRun alone = Trained(one)[0];
  const std::vector<RankRun> parts = Trained(several);
  ASSERT_EQ(parts[0].model.size(), alone.model.size());
  for (const auto& [name, tensor] : alone.model)
    EXPECT_TRUE(torch::allclose(parts[0].model.at(name), tensor, 1e-4, 1e-5)) << name;
  EXPECT_NEAR(parts[0].result->metrics.at("val.loss"), alone.result->metrics.at("val.loss"), 1e-4);
}

TEST_P(ShardedRun, ResumesBitForBit) {
  const int ranks = GetParam().ranks;
  TestFolder whole_folder, folder;
  const json changes = With(Config(), {{"checkpoint", {{"interval", 10}}}, {"ema", {{"enabled", true}}}});
  RunSpec spec = Spec(ranks, changes);
  spec.root = folder.path();
  const std::vector<RankRun> undisturbed = Trained(spec);
  RunSpec again = Spec(ranks, changes);
  again.root = whole_folder.path();
  again.candidates = {folder.At(10)};
  const std::vector<RankRun> resumed = Trained(again);
  for (int rank = 0; rank < ranks; ++rank) ExpectSameModel(resumed[rank].model, undisturbed[rank].model);
  // The parameters, the optimizer's state and the average, in whatever parts.
  const auto first = ReadCheckpoint(folder.At(30), 0, 1), second = ReadCheckpoint(whole_folder.At(30), 0, 1);
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_EQ(first->state.replicated.size(), 4u * 4);  // weights, two moments, average
  for (const auto& [name, tensor] : first->state.replicated)
    EXPECT_TRUE(torch::equal(tensor, second->state.replicated.at(name))) << name;
}

// From any mesh to any mesh: a checkpoint that is loaded and saved again is the same.
TEST_P(ShardedRun, StateMovesToOtherMeshesAndBack) {
  TestFolder folder;
  const json kept = {{"checkpoint", {{"interval", 10}}}, {"ema", {{"enabled", true}}}, {"steps", 10}};
  RunSpec spec = Spec(GetParam().ranks, With(Config(), kept));
  spec.root = folder.path();
  Trained(spec);
  const auto original = ReadCheckpoint(folder.At(10), 0, 1);
  ASSERT_TRUE(original.ok()) << original.status();
  const std::vector<std::pair<int, json>> others = {
      {1, json::object()},
      {3, json::object()},
      {3, Divided("parameters", {{"shard", 3}})},
      {4, Divided("gradients", {{"shard", 2}, {"replicate", 2}})},
      {2, With(Divided("parameters", {{"shard", 2}}), {{"fsdp", {{"units", json::array()}}}})}};
  for (const auto& [ranks, mesh] : others) {
    TestFolder target;
    RunSpec moved = Spec(ranks, With(mesh, kept));  // done already: the state is saved as it was restored
    moved.root = target.path();
    moved.candidates = {folder.At(10)};
    Trained(moved);
    const auto copy = ReadCheckpoint(target.At(10), 0, 1);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_EQ(copy->world_size, ranks);
    ASSERT_EQ(copy->state.replicated.size(), original->state.replicated.size());
    for (const auto& [name, tensor] : original->state.replicated)
      EXPECT_TRUE(torch::equal(tensor, copy->state.replicated.at(name))) << name << " on " << mesh;
    EXPECT_EQ(copy->state.meta.at("optimizer"), original->state.meta.at("optimizer"));
  }
}

TEST(ShardedRunOptions, AllOfThemTrainAsReplicasDo) {
  const json mesh = Divided("parameters", {{"shard", 2}});
  const std::vector<std::pair<json, json>> cases = {
      {{{"fsdp", {{"reshard_after_forward", false}}}}, json::object()},
      {{{"fsdp", {{"prefetch", false}}}}, json::object()},
      {{{"fsdp", {{"no_sync", true}}}}, {{"accum_steps", 3}}},
      {{{"fsdp", {{"units", json::array()}}}}, json::object()},
      {{{"fsdp", {{"ignored_params", {"first"}}, {"units", {"second"}}}}}, {{"max_grad_norm", 0.3}}},
      {json::object(), {{"max_grad_value", 0.05}}},
      {json::object(), {{"comm", {{"shared_memory", false}}}}},
  };
  for (const auto& [fsdp, changes] : cases) {
    const std::vector<RankRun> replicas = Trained(Spec(2, changes));
    const std::vector<RankRun> parts = Trained(Spec(2, With(With(changes, mesh), fsdp)));
    SCOPED_TRACE(fsdp.dump() + changes.dump());
    for (const RankRun& run : parts) ExpectNear(run, replicas[0], 2e-6);
  }
}

TEST(ShardedRunOptions, LowPrecision) {
  const json mesh = Divided("parameters", {{"shard", 2}});
  for (const char* precision : {"bf16", "fp16"}) {
    const std::vector<RankRun> replicas = Trained(Spec(2, {{"precision", precision}}));
    const std::vector<RankRun> parts = Trained(Spec(2, With(mesh, {{"precision", precision}})));
    ExpectNear(parts[0], replicas[0], 1e-4);
  }
  const json policy = {{"param_dtype", "bf16"}, {"reduce_dtype", "fp32"}, {"output_dtype", "fp32"}};
  const std::vector<RankRun> full = Trained(Spec(2, json::object()));
  const std::vector<RankRun> low = Trained(Spec(2, With(mesh, {{"fsdp", {{"mp_policy", policy}}}})));
  EXPECT_NEAR(low[0].result->metrics.at("val.loss"), full[0].result->metrics.at("val.loss"), 0.05);
  EXPECT_NE(low[0].result->metrics.at("val.loss"), full[0].result->metrics.at("val.loss"));
}

TEST(ShardedRunOptions, NonFiniteGradientsAreLeftOutEverywhere) {
  RunSpec spec = Spec(2, With(Divided("parameters", {{"shard", 2}}), {{"skip_nonfinite_grad", true}}));
  auto count = std::make_shared<std::atomic<int>>(0);
  spec.change_output = [count](int rank, const Batch&, StepOutput* output) {
    if (rank == 1 && output->loss.requires_grad() && ++*count == 5) output->loss = output->loss * INFINITY;
  };
  const std::vector<RankRun> runs = Trained(spec);
  EXPECT_EQ(runs[0].result->metrics.at("skipped_updates"), 1);
  for (const auto& [name, tensor] : runs[0].model) EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
  ExpectSameModel(runs[0].model, runs[1].model);
}

TEST(ShardedRunOptions, ElementwiseOptimizersTrainAsOnReplicas) {
  for (const char* type :
       {"sgd", "adam", "adagrad", "adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "rprop", "lion"}) {
    json changes = {{"optim", {{"type", type}, {"lr", 0.01}}}, {"steps", 8}};
    const std::vector<RankRun> replicas = Trained(Spec(2, changes));
    const std::vector<RankRun> parts = Trained(Spec(2, With(changes, Divided("parameters", {{"shard", 2}}))));
    SCOPED_TRACE(type);
    ExpectNear(parts[0], replicas[0], 2e-5);
  }
}

// What looks at whole matrices brings one at a time together.
TEST(ShardedRunOptions, MatrixOptimizersTrainAsOnReplicas) {
  for (const char* type : {"muon", "adafactor"}) {
    for (const char* shard : {"parameters", "optimizer"}) {
      TestFolder folder, again_folder;
      const json changes = {{"optim", {{"type", type}, {"lr", 0.02}}}, {"steps", 8}, {"checkpoint", {{"interval", 4}}}};
      const json mesh = Divided(shard, {{"shard", 2}});
      const std::vector<RankRun> replicas = Trained(Spec(2, changes));
      RunSpec spec = Spec(2, With(changes, mesh));
      spec.root = folder.path();
      const std::vector<RankRun> parts = Trained(spec);
      SCOPED_TRACE(std::string(type) + " " + shard);
      for (const RankRun& run : parts) ExpectNear(run, replicas[0], 1e-4);
      RunSpec again = Spec(2, With(changes, mesh));
      again.root = again_folder.path();
      again.candidates = {folder.At(4)};
      ExpectSameModel(Trained(again)[0].model, parts[0].model);
      // The state is that of whole matrices: replicas go on with it.
      RunSpec whole = Spec(2, changes);
      whole.root = again_folder.path();
      whole.candidates = {folder.At(4)};
      ExpectNear(Trained(whole)[0], parts[0], 1e-4);
    }
  }
}

// Rank 3 changes what ranks 1 and 3 should hold alike.
class Drifting : public TorchRunner {
 public:
  Drifting(RunnerConfig config, TorchRunnerOptions options) : TorchRunner(std::move(config), std::move(options)) {}

 protected:
  absl::StatusOr<bool> OptimizerStep(const std::variant<double, torch::Tensor>& factor) override {
    auto updated = TorchRunner::OptimizerStep(factor);
    const torch::NoGradGuard no_grad;
    if (++steps_ == 4 && rank_ == 3) {
      for (torch::Tensor part : optimizer().parameters()) part.add_(0.25);
    }
    return updated;
  }

 private:
  int steps_ = 0;

 public:
  int rank_ = 0;
};

TEST(ShardedRunOptions, ReplicasThatDriftApartAreFound) {
  std::vector<absl::Status> ends(4);
  RunRanks(4, /*shared_memory=*/true, [&](ProcessGroup* group) {
    auto net = std::make_shared<TestNet>(/*dropout=*/0.0, /*with_norm=*/false);
    TorchRunnerOptions options;
    options.model = net;
    options.datasets = {{"train", TestData(100, 1)}};
    options.forward = [net](const Batch& batch) {
      return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
    };
    options.members = Membership(group);
    options.handle_signals = options.workspace_from_config = false;
    const json changes = {{"checkpoint", {{"interval", 0}}}, {"comm", {{"replica_check_interval", 1}}}};
    auto runner = TorchRunner::Make<Drifting>(
        TestConfig(With(Divided("parameters", {{"shard", 2}, {"replicate", 2}}), changes)), std::move(options));
    ASSERT_TRUE(runner.ok()) << runner.status();
    (*runner)->rank_ = group->rank();
    ends[group->rank()] = (*runner)->Train().status();
  });
  for (const absl::Status& end : ends)
    EXPECT_THAT(std::string(end.message()), HasSubstr("the ranks do not hold the same weights at step 4"));
}

// With the average of the weights; inference runs on all ranks, and gives each its own samples.
TEST(ShardedRunOptions, InferenceSeesWholeWeights) {
  const auto predictions = [](const json& changes) {
    std::vector<torch::Tensor> found(2);
    RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
      auto net = std::make_shared<TestNet>(/*dropout=*/0.0, /*with_norm=*/false);
      TorchRunnerOptions options;
      options.model = net;
      options.datasets = {{"train", TestData(64, 1)}, {"val", TestData(37, 2)}};
      options.forward = [net](const Batch& batch) {
        return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
      };
      options.predict = [net](const Batch& batch) { return net->forward(batch.input); };
      options.members = Membership(group);
      options.handle_signals = options.workspace_from_config = false;
      const json all = {{"checkpoint", {{"interval", 0}}}, {"ema", {{"enabled", true}, {"decay", 0.5}}}, {"steps", 6}};
      auto runner = TorchRunner::Create(TestConfig(With(all, changes)), std::move(options));
      ASSERT_TRUE(runner.ok()) << runner.status();
      const auto trained = (*runner)->Train();
      ASSERT_TRUE(trained.ok()) << trained.status();
      const auto predicted = (*runner)->Infer("val");
      ASSERT_TRUE(predicted.ok()) << predicted.status();
      found[group->rank()] = *predicted;
    });
    return found;
  };
  const auto replicas = predictions(json::object());
  for (const char* shard : {"parameters", "optimizer"}) {
    const auto parts = predictions(Divided(shard, {{"shard", 2}}));
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_GT(parts[rank].size(0), 17);
      EXPECT_TRUE(torch::allclose(parts[rank], replicas[rank], 1e-4, 1e-5)) << shard << rank;
    }
  }
}

// Weights from elsewhere are each rank's own part of them.
TEST(ShardedRunOptions, PretrainedWeightsAndStateDicts) {
  TestFolder folder;
  RunSpec first = Spec(1, {{"steps", 3}, {"checkpoint", {{"interval", 3}}}});
  first.root = folder.path();
  const RankRun source = Trained(first)[0];
  const json start = {{"pretrained", folder.At(3).path}, {"optim", {{"type", "sgd"}, {"lr", 0.0}}}, {"steps", 1}};
  for (const char* shard : {"parameters", "gradients"}) {
    for (const RankRun& run : Trained(Spec(2, With(start, Divided(shard, {{"shard", 2}})))))
      ExpectSameModel(run.model, source.model);
  }
}

TEST(ShardedRunOptions, ActivationCheckpointsTrainAlike) {
  RunSpec plain = Spec(2, json::object()),
          again =
              Spec(2, With(Divided("parameters", {{"shard", 2}}), {{"activation_checkpoint", {{"enabled", true}}}}));
  // The small net has no Sequential.
  const std::vector<RankRun> refused = TrainAll(again);
  EXPECT_THAT(std::string(refused[0].result.status().message()), HasSubstr("the model has no torch::nn::Sequential"));
  const auto trained = [](const json& changes) {
    TensorMap weights;
    RunRanks(2, /*shared_memory=*/true, [&](ProcessGroup* group) {
      TorchRunnerOptions options;
      torch::nn::Sequential net;
      options.make_model = [&net] {
        net = torch::nn::Sequential(torch::nn::Linear(6, 12), torch::nn::Tanh(), torch::nn::Linear(12, 12),
                                    torch::nn::GELU(), torch::nn::Linear(12, 3));
        at::Generator random = at::detail::createCPUGenerator(4);
        const torch::NoGradGuard no_grad;
        for (torch::Tensor& parameter : net->parameters()) parameter.normal_(0, 0.4, random);
        return net.ptr();
      };
      options.datasets = {{"train", TestData(64, 1)}};
      options.forward = [&net](const Batch& batch) {
        return StepOutput{torch::nn::functional::cross_entropy(net->forward(batch.input), batch.target), {}};
      };
      options.members = Membership(group);
      options.handle_signals = options.workspace_from_config = false;
      auto runner = TorchRunner::Create(TestConfig(With({{"checkpoint", {{"interval", 0}}}, {"steps", 6}}, changes)),
                                        std::move(options));
      ASSERT_TRUE(runner.ok()) << runner.status();
      const auto result = (*runner)->Train();
      ASSERT_TRUE(result.ok()) << result.status();
      const auto found = (*runner)->Weights();
      ASSERT_TRUE(found.ok()) << found.status();
      if (group->rank() == 0) weights = *found;
    });
    return weights;
  };
  const json mesh = {{"stack", "parallel"}, {"fsdp", {{"enabled", true}, {"units", {"0", "2", "4"}}}}};
  const TensorMap expected = trained(json::object());
  for (const int every : {1, 2}) {
    const json twice = {{"activation_checkpoint", {{"enabled", true}, {"every", every}}}};
    ExpectSameModel(trained(twice), expected);
    const TensorMap parts = trained(With(mesh, twice));
    for (const auto& [name, tensor] : expected)
      EXPECT_TRUE(torch::allclose(parts.at(name), tensor, 1e-5, 1e-6)) << name;
  }
}

TEST(ShardedRunOptions, WhatDoesNotFitIsRefused) {
  const auto error = [](int ranks, const json& changes) {
    const std::vector<RankRun> runs = TrainAll(Spec(ranks, changes));
    EXPECT_EQ(FailureKindOf(runs[0].result.status()), FailureKind::kInvalid);
    return std::string(runs[0].result.status().message());
  };
  EXPECT_THAT(error(1, {{"stack", "parallel"}}), HasSubstr("stack: found parallel on 1 rank"));
  EXPECT_THAT(
      error(2, Divided("parameters", {{"shard", 3}})),
      HasSubstr("parallel.axes: the world size 2 must be divisible by the known axes replicate(-1) * shard(3)"));
  EXPECT_THAT(error(2, Divided("parameters", {{"shard", 3}, {"replicate", 1}})),
              HasSubstr("parallel.axes: the world size 2 must equal replicate(1) * shard(3)"));
  EXPECT_THAT(error(2, Divided("parameters", {{"shard", -1}, {"replicate", -1}})),
              HasSubstr("found -1 for replicate and shard"));
  EXPECT_THAT(error(2, Divided("parameters", {{"shard", 0}})), HasSubstr("shard = 0"));
  RunnerConfig config;
  const auto problems = [&](const json& changes) {
    const json whole = With({{"steps", 1}, {"optim", {{"type", "sgd"}}}}, changes);
    return std::string(ToStatus(CheckRunnerConfig(whole, &config)).message());
  };
  EXPECT_THAT(problems(With(Divided("parameters", {{"shard", 2}}), {{"optim", {{"type", "lbfgs"}}}})),
              HasSubstr("its line search needs whole gradients"));
  EXPECT_THAT(problems(With(Divided("parameters", {{"shard", 2}}), {{"compile", {{"enable", true}}}})),
              HasSubstr("compile.enable: not with a divided model"));
  EXPECT_THAT(problems({{"stack", "parallel"}, {"parallel", {{"axes", {{"tensor", 2}}}}}}),
              HasSubstr("parallel.axes.tensor: found 2"));
  EXPECT_THAT(problems({{"fsdp", {{"enabled", true}}}}), HasSubstr("fsdp.enabled: needs \"stack\": \"parallel\""));
}

}  // namespace
}  // namespace athanor

// Meters, containers and data parallel training over several ranks: one thread each, over a real process group.
#include <thread>

#include "athanor/base/status_macros.h"
#include "athanor/data/distributed_sampler.h"
#include "athanor/parallel/gradient_reducer.h"
#include "athanor/parallel/process_group.h"
#include "tests/oracle/metric_sets.h"

namespace athanor::oracle {
namespace {

using RankBody = std::function<std::string(ProcessGroup& group)>;

// The first failure of any rank.
std::string OnRanks(int world_size, const RankBody& body) {
  absl::StatusOr<std::unique_ptr<HostStore>> store = HostStore::Create({});
  if (!store.ok()) return store.status().ToString();
  std::vector<std::string> failures(static_cast<size_t>(world_size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      ProcessGroupOptions options{
          .rank = rank, .world_size = world_size, .store_port = (*store)->port(), .prefix = "oracle"};
      if (rank == 0) options.hosted_store = store->get();
      absl::StatusOr<std::unique_ptr<ProcessGroup>> group = ProcessGroup::Create(options);
      std::string& failure = failures[static_cast<size_t>(rank)];
      try {
        failure = group.ok() ? body(**group) : group.status().ToString();
      } catch (const std::exception& error) {
        failure = error.what();
      }
      if (!failure.empty() && group.ok()) (*group)->Abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t rank = 0; rank < failures.size(); ++rank) {
    if (!failures[rank].empty()) return "rank " + std::to_string(rank) + ": " + failures[rank];
  }
  return "";
}

std::string CompareOne(const nlohmann::json& expected, const absl::StatusOr<torch::Tensor>& found, const char* what) {
  return found.ok() ? CompareMetric(expected, *found, what) : found.status().ToString();
}

std::string CompareAll(const nlohmann::json& expected, const absl::StatusOr<MetricValues>& found, const char* what) {
  return found.ok() ? CompareMetrics(expected, *found, what) : found.status().ToString();
}

std::string CheckMeter(const nlohmann::json& updates, const nlohmann::json& expected, ProcessGroup& group) {
  AverageMeter meter(MakeMeterSync(group));
  for (const auto& update : updates) meter.Update(Number(update.at(0)), update.at(1).get<int64_t>());
  return FirstOf({CompareOne(expected.at("val"), meter.Value(), "val"),
                  CompareOne(expected.at("bat"), meter.Batch(), "bat"),
                  CompareOne(expected.at("avg"), meter.Average(), "avg")});
}

std::string CheckMeters(const nlohmann::json& test, const nlohmann::json& updates, const nlohmann::json& expected,
                        ProcessGroup& group) {
  AverageMeters meters(MakeMeterSync(group));
  for (const auto& name : test.value("pre_create", nlohmann::json::array())) meters[name.get<std::string>()];
  for (const auto& update : updates) {
    for (const auto& [name, value] : update.items()) {
      const NestedValue given =
          value.is_array() ? BatchOf(value) : NestedValue(torch::tensor(Number(value), torch::kFloat64));
      meters.Update(name, given.dense());
    }
  }
  return FirstOf({CompareAll(expected.at("val"), meters.Value(), "val"),
                  CompareAll(expected.at("bat"), meters.Batch(), "bat"),
                  CompareAll(expected.at("avg"), meters.Average(), "avg")});
}

std::string CheckSet(const nlohmann::json& test, const nlohmann::json& updates, const nlohmann::json& expected,
                     ProcessGroup& group) {
  const std::string kind = test.at("kind").get<std::string>();
  const nlohmann::json spec = {{"container", "factory"},
                               {"task", kind.substr(0, kind.find('_'))},
                               {"mode", test.value("mode", "global")},
                               {"args", test.value("args", nlohmann::json::object())}};
  absl::StatusOr<std::unique_ptr<MetricSet>> metrics = MakeSet(spec, MakeMeterSync(group));
  if (!metrics.ok()) return metrics.status().ToString();
  for (const auto& update : updates) {
    const auto [input, target] = AsDeclared(BatchOf(update.at(0)), BatchOf(update.at(1)));
    (*metrics)->Update(input, target);
  }
  return FirstOf({CompareAll(expected.at("bat"), (*metrics)->Batch(), "bat"),
                  CompareAll(expected.at("avg"), (*metrics)->Average(), "avg"),
                  // A second read-out sends no samples and says the same.
                  CompareAll(expected.at("avg"), (*metrics)->Average(), "avg again")});
}

std::string CompareTasks(const nlohmann::json& expected, const absl::StatusOr<TaskValues>& found) {
  if (!found.ok()) return found.status().ToString();
  if (expected.size() != found->size()) return "another number of tasks";
  for (const auto& [task, values] : *found) {
    if (std::string text = CompareMetrics(expected.at(task), values, task); !text.empty()) return text;
  }
  return "";
}

std::string CheckTasks(const nlohmann::json& test, const nlohmann::json& updates, const nlohmann::json& expected,
                       ProcessGroup& group) {
  nlohmann::json spec = test;
  if (!spec.contains("tasks")) spec["tasks"] = {{"a", "t1"}, {"b", "t1"}};
  absl::StatusOr<MultiTaskMetrics> metrics = MakeTasks(spec, MakeMeterSync(group));
  if (!metrics.ok()) return metrics.status().ToString();
  for (const auto& update : updates) {
    if (const absl::Status status = UpdateTasks(update, *metrics); !status.ok()) return status.ToString();
  }
  return FirstOf({CompareTasks(expected.at("bat"), metrics->BatchByTask()),
                  CompareTasks(expected.at("avg"), metrics->AverageByTask())});
}

torch::Tensor Matrix(const nlohmann::json& rows) {
  std::vector<torch::Tensor> tensors;
  for (const auto& row : rows) {
    std::vector<double> numbers;
    for (const auto& item : row) numbers.push_back(Number(item));
    tensors.push_back(torch::tensor(numbers, torch::kFloat64));
  }
  return torch::stack(tensors);
}

// One rank of the recorded data parallel training.
class TrainingRank {
 public:
  TrainingRank(const nlohmann::json& test, ProcessGroup& group)
      : test_(test), group_(group), x_(Matrix(test.at("x"))), y_(Matrix(test.at("y"))) {
    model_->to(torch::kFloat64);
    const torch::NoGradGuard no_grad;
    model_->weight.copy_(Matrix(test.at("weight")));
    model_->bias.fill_(Number(test.at("bias")[0]));
  }

  std::string Run(const nlohmann::json& expected) {
    auto reducer = GradientReducer::Create(*model_, &group_, {});
    if (!reducer.ok()) return reducer.status().ToString();
    reducer_ = std::move(*reducer);
    DistributedSampler sampler(
        {.dataset_size = x_.size(0), .world_size = group_.world_size(), .rank = group_.rank(), .shuffle = false});
    for (int64_t epoch = 0; epoch < test_.at("epochs").get<int64_t>(); ++epoch) {
      sampler.StartEpoch(epoch);
      if (std::string text = Epoch(sampler, expected); !text.empty()) return text;
      absl::StatusOr<torch::Tensor> mean = epoch_loss_.Average();
      if (std::string text = CompareOne(expected.at("epoch_losses")[static_cast<size_t>(epoch)], mean, "epoch loss");
          !text.empty())
        return text;
      epoch_loss_.Reset();
    }
    return FirstOf({Compare(Number(expected.at("global_step")), static_cast<double>(global_step_), 0, "global_step"),
                    Compare(Matrix(expected.at("weight")), model_->weight, 1e-12, "weight"),
                    Compare(Number(expected.at("bias")[0]), model_->bias.item<double>(), 1e-12, "bias")});
  }

 private:
  std::string Epoch(const DistributedSampler& sampler, const nlohmann::json& expected) {
    const int64_t batch = test_.at("batch_size").get<int64_t>(), accum = test_.at("accum_steps").get<int64_t>();
    const bool drop_last = test_.value("drop_last", true);
    const int64_t batches = drop_last ? sampler.size() / batch : (sampler.size() + batch - 1) / batch;
    for (int64_t at = 0; at < batches; ++at) {
      // The last window of a pass may be short; its gradients are divided by what it has.
      const int64_t begin = at / accum * accum, window = std::min(accum, batches - begin);
      const bool last = at == begin + window - 1;
      const std::vector<int64_t> indices = sampler.Indices(at * batch, batch);
      const torch::Tensor rows = torch::tensor(indices, torch::kInt64);
      const torch::Tensor loss = Loss(x_.index({rows}), y_.index({rows}));
      if (last) reducer_->PrepareForBackward(loss / window);
      (loss / window).backward();
      if (last) {
        reducer_->FinishBackward();
        Step();
      }
      if (std::string text = CheckMicroStep(expected.at("micro_steps").at(micro_++), loss, indices.size(), last);
          !text.empty())
        return "micro step " + std::to_string(micro_ - 1) + ": " + text;
    }
    return "";
  }

  torch::Tensor Loss(const torch::Tensor& x, const torch::Tensor& y) {
    const torch::Tensor out = model_->forward(x);
    return torch::mse_loss(out, y);
  }

  void Step() {
    const torch::NoGradGuard no_grad;
    for (torch::Tensor& parameter : parameters_) parameter.sub_(parameter.grad() * Number(test_.at("lr")));
    reducer_->DropGradients();
    ++global_step_;
  }

  std::string CheckMicroStep(const nlohmann::json& expected, const torch::Tensor& loss, size_t n, bool stepped) {
    AverageMeter step_loss(sync_);
    step_loss.Update(loss, static_cast<int64_t>(n));
    epoch_loss_.Update(loss, static_cast<int64_t>(n));
    if (expected.at("stepped") != stepped) return "stepped otherwise";
    return FirstOf({Compare(Number(expected.at("n")), static_cast<double>(n), 0, "n"),
                    Compare(Number(expected.at("loss")), loss.item<double>(), 1e-12, "loss"),
                    CompareOne(expected.at("reduced_loss"), step_loss.Batch(), "reduced_loss")});
  }

  const nlohmann::json& test_;
  ProcessGroup& group_;
  torch::Tensor x_, y_;
  torch::nn::Linear model_{2, 1};
  std::vector<torch::Tensor> parameters_ = model_->parameters();
  std::unique_ptr<GradientReducer> reducer_;
  std::shared_ptr<MeterSync> sync_ = MakeMeterSync(group_);
  AverageMeter epoch_loss_{sync_};
  int64_t global_step_ = 0;
  size_t micro_ = 0;
};

std::string CheckRank(const nlohmann::json& test, ProcessGroup& group) {
  const auto rank = static_cast<size_t>(group.rank());
  const nlohmann::json& expected = test.at("expected_per_rank").at(rank);
  const std::string kind = test.at("kind").get<std::string>();
  if (kind == "ddp_training") return TrainingRank(test, group).Run(expected);
  const nlohmann::json& updates = test.at("ranks").at(rank);
  if (kind == "AverageMeter") return CheckMeter(updates, expected, group);
  if (kind == "AverageMeters") return CheckMeters(test, updates, expected, group);
  if (kind == "multitask") return CheckTasks(test, updates, expected, group);
  return CheckSet(test, updates, expected, group);
}

void Replay(const nlohmann::json& file, Report& report) {
  for (const auto& test : file.at("cases")) {
    const auto check = [&] {
      return OnRanks(test.at("world_size").get<int>(), [&](ProcessGroup& group) { return CheckRank(test, group); });
    };
    const bool training = test.at("kind") == "ddp_training";  // no scores
    report.Case(test.at("id").get<std::string>(),
                [&] { return training ? check() : UnderBothRules(check, /*quirk=*/true); });
  }
}

}  // namespace

ATHANOR_ORACLE_FAMILY(distributed, Replay);

}  // namespace athanor::oracle

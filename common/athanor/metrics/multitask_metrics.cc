#include "athanor/metrics/multitask_metrics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

bool AllNan(const torch::Tensor& value) {
  return value.isnan().all().item<bool>();
}

// Ends at the first '/' of a key, whatever task and metrics are called.
std::string PrefixOf(const std::string& task) {
  return absl::StrCat(absl::StrReplaceAll(task, {{"%", "%25"}, {"/", "%2F"}}), "/");
}

}  // namespace

absl::StatusOr<Aggregate> ParseAggregate(const std::string& name) {
  if (name == "macro") return Aggregate::kMacro;
  if (name == "micro") return Aggregate::kMicro;
  if (name == "weighted") return Aggregate::kWeighted;
  return absl::InvalidArgumentError(absl::StrCat("aggregate: found '", name, "', use macro, micro or weighted"));
}

absl::StatusOr<MultiTaskMetrics> MultiTaskMetrics::Create(MultiTaskOptions options) {
  const bool weighted = options.aggregate == Aggregate::kWeighted;
  if (!weighted && !options.weights.empty())
    return absl::InvalidArgumentError("aggregate weights are for the aggregate 'weighted' only");
  if (weighted && options.weights.empty())
    return absl::InvalidArgumentError("the aggregate 'weighted' needs a weight for every task");
  for (const auto& [task, weight] : options.weights) {
    if (!std::isfinite(weight) || weight < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("aggregate weight of task '", task, "': found ", weight, ", must be finite and at least 0"));
    }
  }
  return MultiTaskMetrics(std::move(options));
}

absl::Status MultiTaskMetrics::Add(const std::string& task, std::unique_ptr<MetricSet> metrics) {
  if (task == "aggregate" || task.empty())
    return absl::InvalidArgumentError(absl::StrCat("no task name: '", task, "'"));
  if (metrics == nullptr) return absl::InvalidArgumentError(absl::StrCat("task '", task, "' has no metrics"));
  if (Find(task) != nullptr) return absl::InvalidArgumentError(absl::StrCat("task '", task, "' is there already"));
  tasks_.emplace_back(task, std::move(metrics));
  return absl::OkStatus();
}

MetricSet* MultiTaskMetrics::Find(const std::string& task) {
  for (auto& [name, metrics] : tasks_) {
    if (name == task) return metrics.get();
  }
  return nullptr;
}

std::vector<std::string> MultiTaskMetrics::tasks() const {
  std::vector<std::string> names;
  for (const auto& [name, metrics] : tasks_) names.push_back(name);
  return names;
}

absl::Status MultiTaskMetrics::UpdateTasks(const TaskBatches& batches) {
  for (const auto& [task, batch] : batches) {
    if (Find(task) != nullptr) continue;
    return absl::NotFoundError(
        absl::StrCat("no metrics for task '", task, "'; there are: ", absl::StrJoin(tasks(), ", ")));
  }
  for (const auto& [task, batch] : batches) Find(task)->Update(batch.input, batch.target);
  return absl::OkStatus();
}

absl::Status MultiTaskMetrics::Update(const std::string& task, const NestedValue& input, const NestedValue& target) {
  return UpdateTasks({{task, {input, target}}});
}

void MultiTaskMetrics::Update(const torch::Tensor& input, const torch::Tensor& target) {
  TORCH_CHECK_VALUE(tasks_.size() == 1, "one batch for ", tasks_.size(), " tasks (", absl::StrJoin(tasks(), ", "),
                    "): name its task with UpdateTasks()");
  tasks_[0].second->Update(input, target);
}

absl::Status MultiTaskMetrics::CheckWeights() const {
  if (options_.aggregate != Aggregate::kWeighted) return absl::OkStatus();
  for (const auto& [task, metrics] : tasks_) {
    if (!options_.weights.contains(task))
      return absl::InvalidArgumentError(absl::StrCat("task '", task, "' has no aggregate weight"));
  }
  for (const auto& [task, weight] : options_.weights) {
    const auto same = [&task = task](const auto& entry) { return entry.first == task; };
    if (std::none_of(tasks_.begin(), tasks_.end(), same))
      return absl::InvalidArgumentError(absl::StrCat("aggregate weight for an unknown task '", task, "'"));
  }
  return absl::OkStatus();
}

// Of the i-th value that was read out.
torch::Tensor MultiTaskMetrics::WeightOf(const std::string& task, const JointValues& found, size_t i) const {
  double weight = 1;
  if (options_.aggregate == Aggregate::kWeighted) weight = options_.weights.at(task);
  if (options_.aggregate == Aggregate::kMicro) {
    if (i < found.weights.size()) return found.weights[i].to(torch::kCPU, torch::kFloat64);
    weight = static_cast<double>(found.samples);
  }
  return torch::tensor(weight, torch::kFloat64);
}

MeterSync* MultiTaskMetrics::SharedSync() {
  MeterSync* sync = options_.sync.get();
  for (auto& [task, metrics] : tasks_) {
    if (sync == nullptr && metrics->joint() != nullptr) sync = metrics->joint()->sync();
  }
  return sync == nullptr || sync->world_size() == 1 ? nullptr : sync;
}

// The tasks over the ranks of SharedSync(), in one exchange. What is wrong here only goes into it.
absl::StatusOr<std::map<std::string, JointValues>> MultiTaskMetrics::ReadTogether(ReadOut of) {
  std::map<std::string, JointValues> found;
  MeterSync* sync = SharedSync();
  if (sync == nullptr) {
    RETURN_IF_ERROR(CheckWeights());
    return found;
  }
  RankPart frame{.what = absl::StrCat("tasks ", absl::StrJoin(tasks(), ", "), " with aggregate ",
                                      static_cast<int>(options_.aggregate)),
                 .status = CheckWeights(),
                 .unchanged = true};
  std::vector<RankPart> mine = {std::move(frame)};
  std::vector<std::pair<std::string, JointReadOut*>> together;
  for (auto& [task, metrics] : tasks_) {
    JointReadOut* joint = metrics->joint();
    if (joint == nullptr || joint->sync() == nullptr || joint->sync()->group() != sync->group()) continue;
    together.emplace_back(task, joint);
    mine.push_back(joint->PartFor(of));
    mine.back().what = absl::StrCat("task ", task, ": ", mine.back().what);
  }
  ASSIGN_OR_RETURN(RankParts ranks, ExchangeParts(*sync, mine));
  for (size_t i = 0; i < together.size(); ++i) {
    const auto& [task, joint] = together[i];
    std::vector<RankPart> parts;
    for (std::vector<RankPart>& rank : ranks) parts.push_back(std::move(rank[i + 1]));
    absl::StatusOr<JointValues> values = joint->FromParts(of, parts);
    RETURN_IF_ERROR(Annotate(values.status(), absl::StrCat("task '", task, "'")));
    found[task] = *std::move(values);
  }
  return found;
}

absl::StatusOr<JointValues> MultiTaskMetrics::ReadAlone(MetricSet& metrics, Of of) const {
  JointValues joint;
  ASSIGN_OR_RETURN(joint.values, !of ? metrics.Value() : of == ReadOut::kBatch ? metrics.Batch() : metrics.Average());
  if (options_.aggregate == Aggregate::kMicro) {
    ASSIGN_OR_RETURN(joint.samples, metrics.Samples(of != ReadOut::kAll, of.has_value()));
    ASSIGN_OR_RETURN(joint.weights, metrics.Weights(of != ReadOut::kAll, of.has_value()));
  }
  return joint;
}

absl::StatusOr<TaskValues> MultiTaskMetrics::Read(Of of) {
  std::map<std::string, JointValues> together;
  if (of) {
    ASSIGN_OR_RETURN(together, ReadTogether(*of));
  } else {
    RETURN_IF_ERROR(CheckWeights());
  }
  TaskValues all;
  std::vector<Entry> entries;
  for (auto& [task, metrics] : tasks_) {
    if (!together.contains(task)) {
      absl::StatusOr<JointValues> alone = ReadAlone(*metrics, of);
      RETURN_IF_ERROR(Annotate(alone.status(), absl::StrCat("task '", task, "'")));
      together[task] = *std::move(alone);
    }
    JointValues& found = together[task];
    for (size_t i = 0; i < found.values.size(); ++i) {
      const auto& [name, value] = found.values[i];
      entries.push_back({task, name, value.to(torch::kCPU, torch::kFloat64), WeightOf(task, found, i)});
    }
    const auto nothing = [](const auto& value) { return AllNan(value.second); };
    if (!std::all_of(found.values.begin(), found.values.end(), nothing))
      all.emplace_back(task, std::move(found.values));
  }
  if (options_.aggregate == Aggregate::kNone) return all;
  ASSIGN_OR_RETURN(MetricValues aggregate, AggregateOf(entries));
  all.emplace_back("aggregate", std::move(aggregate));
  return all;
}

absl::StatusOr<MetricValues> MultiTaskMetrics::Flat(absl::StatusOr<TaskValues> values) {
  RETURN_IF_ERROR(values.status());
  MetricValues flat;
  for (auto& [task, metrics] : *values) {
    for (auto& [name, value] : metrics) flat.emplace_back(absl::StrCat(task, "/", name), std::move(value));
  }
  return flat;
}

absl::StatusOr<int64_t> MultiTaskMetrics::Samples(bool of_batch, bool ranks) {
  int64_t sum = 0;
  for (auto& [task, metrics] : tasks_) {
    ASSIGN_OR_RETURN(const int64_t samples, metrics->Samples(of_batch, ranks));
    sum += samples;
  }
  return sum;
}

// Element by element over what is known; NaN where nothing is.
absl::StatusOr<MetricValues> MultiTaskMetrics::AggregateOf(const std::vector<Entry>& entries) {
  struct Sum {
    const Entry* first;
    torch::Tensor values, weights;
  };
  std::vector<std::string> names;
  std::map<std::string, Sum> sums;
  for (const Entry& entry : entries) {
    const torch::Tensor weight = torch::where(entry.value.isnan(), 0.0, entry.weight.expand_as(entry.value));
    if (!(weight > 0).any().item<bool>()) continue;
    const auto [found, is_new] =
        sums.try_emplace(entry.name, Sum{&entry, torch::zeros_like(weight), torch::zeros_like(weight)});
    Sum& sum = found->second;
    if (is_new) names.push_back(entry.name);
    if (entry.value.sizes() != sum.values.sizes()) {
      return absl::InvalidArgumentError(absl::StrCat("metric '", entry.name, "' has other shapes in tasks '",
                                                     sum.first->task, "' and '", entry.task, "'"));
    }
    sum.values += torch::where(weight > 0, entry.value, 0.0) * weight;
    sum.weights += weight;
  }
  MetricValues aggregate;
  for (const std::string& name : names) {
    const Sum& sum = sums.at(name);
    aggregate.emplace_back(name, torch::where(sum.weights > 0, sum.values / sum.weights, std::nan("")));
  }
  return aggregate;
}

absl::StatusOr<std::string> MultiTaskMetrics::Text(int decimals) {
  std::string text;
  for (auto& [task, metrics] : tasks_) {
    ASSIGN_OR_RETURN(const std::string line, metrics->Text(decimals));
    absl::StrAppend(&text, text.empty() ? "" : "\n", task, ": ", line);
  }
  return text;
}

void MultiTaskMetrics::Reset() {
  for (auto& [task, metrics] : tasks_) metrics->Reset();
}

absl::StatusOr<TensorMap> MultiTaskMetrics::StateTensors() {
  TensorMap state;
  for (auto& [task, metrics] : tasks_) {
    absl::StatusOr<TensorMap> own = metrics->StateTensors();
    RETURN_IF_ERROR(Annotate(own.status(), absl::StrCat("task '", task, "'")));
    for (auto& [key, tensor] : *own) state[PrefixOf(task) + key] = std::move(tensor);
  }
  return state;
}

absl::StatusOr<std::function<void()>> MultiTaskMetrics::PlanLoad(const TensorMap& state) {
  std::map<std::string, TensorMap> by_prefix;
  for (auto& [task, metrics] : tasks_) by_prefix[PrefixOf(task)];
  for (const auto& [key, tensor] : state) {
    const size_t end = key.find('/') + 1;  // 0 without a prefix, which no task has
    const auto own = by_prefix.find(key.substr(0, end));
    if (own == by_prefix.end())
      return absl::InvalidArgumentError(
          absl::StrCat("metric state '", key, "': of no task; there are: ", absl::StrJoin(tasks(), ", ")));
    own->second[key.substr(end)] = tensor;
  }
  std::vector<std::function<void()>> loads;
  for (auto& [task, metrics] : tasks_) {
    absl::StatusOr<std::function<void()>> load = metrics->PlanLoad(by_prefix[PrefixOf(task)]);
    RETURN_IF_ERROR(Annotate(load.status(), absl::StrCat("task '", task, "'")));
    loads.push_back(*std::move(load));
  }
  return [loads = std::move(loads)] {
    for (const std::function<void()>& load : loads) load();
  };
}

}  // namespace athanor

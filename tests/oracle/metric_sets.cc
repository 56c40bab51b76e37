#include "tests/oracle/metric_sets.h"

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor::oracle {
namespace {

// A descriptor, or a function of one batch with its arguments.
StreamMetric MetricOf(const std::string& name, const nlohmann::json& spec) {
  const std::string function = spec.at("f").get<std::string>();
  const nlohmann::json args = spec.value("args", nlohmann::json::object());
  if (const MetricFunction found = FindFunction(function); found != nullptr) {
    const metrics::FunctionOptions options = FunctionOptionsOf(args);
    return {name, [found, options](const torch::Tensor& input, const torch::Tensor& target) {
              return found(input, target, options);
            }};
  }
  MetricFunc descriptor = DescriptorOf(function, args);
  descriptor.name = name;
  return descriptor;
}

absl::StatusOr<std::unique_ptr<MetricSet>> MakeGlobal(const nlohmann::json& spec, std::shared_ptr<MeterSync> sync) {
  std::vector<MetricFunc> metrics;
  for (const auto& [name, metric] : spec.at("metrics").items()) {
    const StreamMetric made = MetricOf(name, metric);
    // A plain function is no MetricFunc: Create() does not take one, the compiler says so.
    if (made.descriptor() == nullptr) return absl::InvalidArgumentError("not a descriptor");
    metrics.push_back(*made.descriptor());
  }
  GlobalOptions options{.scores = Rules().scores, .sync = std::move(sync)};
  if (spec.contains("preprocess")) options.preprocess = PreprocessOf(spec["preprocess"]);
  ASSIGN_OR_RETURN(auto made, GlobalMetrics::Create(std::move(metrics), std::move(options)));
  return std::unique_ptr<MetricSet>(std::move(made));
}

absl::StatusOr<std::unique_ptr<MetricSet>> MakeStream(const nlohmann::json& spec, std::shared_ptr<MeterSync> sync) {
  std::vector<StreamMetric> metrics;
  for (const auto& [name, metric] : spec.at("metrics").items()) metrics.push_back(MetricOf(name, metric));
  StreamOptions options{.preprocess_given = true, .scores = Rules().scores, .sync = std::move(sync)};
  options.preprocess = PreprocessOf(spec.value("preprocess", nlohmann::json{{"f", "base_preprocess"}}));
  ASSIGN_OR_RETURN(auto made, StreamMetrics::Create(std::move(metrics), std::move(options)));
  return std::unique_ptr<MetricSet>(std::move(made));
}

absl::StatusOr<std::unique_ptr<MetricSet>> MakeByType(const std::string& type, const nlohmann::json& args,
                                                      const std::string& mode, std::shared_ptr<MeterSync> sync) {
  MetricsOptions options;
  options.type = type;
  if (mode != "global" && mode != "stream") return absl::InvalidArgumentError(absl::StrCat("no such mode: ", mode));
  options.mode = mode == "global" ? MetricMode::kGlobal : MetricMode::kStream;
  for (auto [name, to] : {std::pair{"num_classes", &options.num_classes}, std::pair{"num_labels", &options.num_labels},
                          std::pair{"num_outputs", &options.num_outputs}}) {
    if (args.contains(name) && !args[name].is_null()) *to = args[name].get<int64_t>();
  }
  options.options = MetricOptionsOf(args);
  options.ignore_nan = args.value("ignore_nan", true);
  options.scores = Rules().scores;
  options.sync = std::move(sync);
  return BuildMetrics(options);
}

absl::StatusOr<std::unique_ptr<MetricSet>> MakeTask(const std::string& task, const std::string& kind,
                                                    std::shared_ptr<MeterSync> sync) {
  // A metric by itself, which a function becomes.
  const auto meter = [&](StreamMetric metric) -> absl::StatusOr<std::unique_ptr<MetricSet>> {
    StreamOptions options{.preprocess_given = true, .sync = sync};
    options.preprocess = PreprocessOf({{"f", "base_preprocess"}});
    ASSIGN_OR_RETURN(auto made, MetricMeter(std::move(metric), std::move(options)));
    return std::unique_ptr<MetricSet>(std::move(made));
  };
  const auto stream = [&](std::vector<StreamMetric> metrics) -> absl::StatusOr<std::unique_ptr<MetricSet>> {
    StreamOptions options{.preprocess_given = true, .sync = sync};
    options.preprocess = PreprocessOf({{"f", "base_preprocess"}});
    ASSIGN_OR_RETURN(auto made, StreamMetrics::Create(std::move(metrics), std::move(options)));
    return std::unique_ptr<MetricSet>(std::move(made));
  };
  const StreamMetric acc = MetricOf("acc", {{"f", "accuracy"}}), f1 = MetricOf("f1", {{"f", "f1_score"}});
  if (kind == "t1") return stream({acc});
  if (kind == "t2") return stream({acc, f1});
  if (kind == "t3") return stream({f1});
  if (kind == "g1") return MakeByType("binary", nlohmann::json::object(), "global", sync);
  if (kind == "reg") return MakeByType("regression", nlohmann::json::object(), "stream", sync);
  if (kind == "vec" || kind == "vec4") {
    const int64_t classes = kind == "vec" ? 3 : 4;
    return stream({MetricOf("acc", {{"f", "accuracy"}, {"args", {{"num_classes", classes}, {"average", "none"}}}})});
  }
  if (kind == "fn" || kind == "meter") return meter(MetricOf("accuracy", {{"f", "accuracy"}}));
  if (kind == "lambda") {  // named after its task
    return meter(StreamMetric(task, [](const torch::Tensor& p, const torch::Tensor& t) {
      return ((p > 0.5) == t.to(torch::kBool)).to(torch::kFloat32).mean();
    }));
  }
  return absl::InvalidArgumentError(absl::StrCat("the replay does not know the task kind '", kind, "'"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricSet>> MakeSet(const nlohmann::json& spec, std::shared_ptr<MeterSync> sync) {
  try {
    const std::string container = spec.at("container").get<std::string>();
    const nlohmann::json args = spec.value("args", nlohmann::json::object());
    if (container == "factory") return MakeByType(spec.at("task"), args, spec.value("mode", "global"), sync);
    if (container == "registry") return MakeByType(spec.at("type"), args, args.value("mode", "global"), sync);
    if (container == "GlobalMetrics") return MakeGlobal(spec, sync);
    return MakeStream(spec, sync);
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(error.what_without_backtrace());
  }
}

absl::StatusOr<MultiTaskMetrics> MakeTasks(const nlohmann::json& test, std::shared_ptr<MeterSync> sync) {
  MultiTaskOptions options;
  if (test.contains("aggregate") && !test["aggregate"].is_null()) {
    ASSIGN_OR_RETURN(options.aggregate, ParseAggregate(test["aggregate"].get<std::string>()));
  }
  const nlohmann::json weights = test.value("aggregate_weights", nlohmann::json());
  if (weights.is_object()) {
    for (const auto& [task, weight] : weights.items()) options.weights[task] = Number(weight);
  }
  ASSIGN_OR_RETURN(MultiTaskMetrics metrics, MultiTaskMetrics::Create(std::move(options)));
  for (const auto& [task, kind] : test.at("tasks").items()) {
    ASSIGN_OR_RETURN(std::unique_ptr<MetricSet> made, MakeTask(task, kind.get<std::string>(), sync));
    RETURN_IF_ERROR(metrics.Add(task, std::move(made)));
  }
  return metrics;
}

absl::Status UpdateTasks(const nlohmann::json& update, MultiTaskMetrics& metrics) {
  if (update == "reset") {
    metrics.Reset();
    return absl::OkStatus();
  }
  for (const auto& [task, payload] : update.items()) {
    if (payload.is_string()) TORCH_CHECK_TYPE(false, "the compiler refuses a text as a batch");
    const nlohmann::json& input = payload.is_array() ? payload.at(0) : payload.at("input");
    const nlohmann::json& target = payload.is_array() ? payload.at(1) : payload.at("target");
    const auto [scores, labels] = AsDeclared(BatchOf(input), BatchOf(target));
    const absl::Status status = metrics.Update(task, scores, labels);
    // An unknown task is recorded as ValueError; here it is NOT_FOUND.
    if (absl::IsNotFound(status)) return absl::InvalidArgumentError(status.message());
    RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

}  // namespace athanor::oracle

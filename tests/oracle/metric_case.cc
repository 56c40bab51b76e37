#include "tests/oracle/metric_case.h"

#include <algorithm>
#include <map>

#include "athanor/metrics/functional/binary.h"
#include "athanor/metrics/functional/multiclass.h"
#include "athanor/metrics/functional/multilabel.h"
#include "athanor/metrics/functional/regression.h"
#include "athanor/metrics/metric_set.h"

namespace athanor::oracle {
namespace {

using metrics::MetricOptions;

torch::Tensor FlatList(const nlohmann::json& list) {
  std::vector<double> numbers;
  bool whole = true;
  for (const auto& item : list) {
    numbers.push_back(Number(item));
    whole = whole && (item.is_number_integer() || item.is_boolean());
  }
  return torch::tensor(numbers, torch::kFloat64).to(Place(), whole ? torch::kInt64 : torch::kFloat32);
}

template <class T>
std::optional<T> Maybe(const nlohmann::json& args, const char* name) {
  const auto found = args.find(name);
  if (found == args.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

using Binary = MetricFunc (*)(const MetricOptions&);
using Wide = MetricFunc (*)(int64_t, const MetricOptions&);

const std::map<std::string, Binary>& BinaryDescriptors() {
  using namespace metrics;  // NOLINT(google-build-using-namespace)
  static const auto f1 = [](const MetricOptions& o) { return BinaryF1(o); };
  static const std::map<std::string, Binary> table = {{"accuracy", BinaryAccuracy},
                                                      {"precision", BinaryPrecision},
                                                      {"recall", BinaryRecall},
                                                      {"specificity", BinarySpecificity},
                                                      {"balanced_accuracy", BinaryBalancedAccuracy},
                                                      {"jaccard_index", BinaryJaccardIndex},
                                                      {"iou", BinaryIou},
                                                      {"hamming_loss", BinaryHammingLoss},
                                                      {"fbeta", BinaryFBeta},
                                                      {"fbeta_score", BinaryFBeta},
                                                      {"f1", f1},
                                                      {"f1_score", f1},
                                                      {"auroc", BinaryAuroc},
                                                      {"auprc", BinaryAuprc},
                                                      {"mcc", BinaryMcc}};
  return table;
}

const std::map<std::string, Wide>& WideDescriptors(bool labels) {
  using namespace metrics;  // NOLINT(google-build-using-namespace)
  static const auto class_f1 = [](int64_t n, const MetricOptions& o) { return MulticlassF1(n, o); };
  static const auto label_f1 = [](int64_t n, const MetricOptions& o) { return MultilabelF1(n, o); };
  static const std::map<std::string, Wide> class_table = {{"accuracy", MulticlassAccuracy},
                                                          {"precision", MulticlassPrecision},
                                                          {"recall", MulticlassRecall},
                                                          {"specificity", MulticlassSpecificity},
                                                          {"balanced_accuracy", MulticlassBalancedAccuracy},
                                                          {"jaccard_index", MulticlassJaccardIndex},
                                                          {"iou", MulticlassIou},
                                                          {"hamming_loss", MulticlassHammingLoss},
                                                          {"fbeta", MulticlassFBeta},
                                                          {"fbeta_score", MulticlassFBeta},
                                                          {"f1", class_f1},
                                                          {"f1_score", class_f1},
                                                          {"auroc", MulticlassAuroc},
                                                          {"auprc", MulticlassAuprc},
                                                          {"mcc", MulticlassMcc}};
  static const std::map<std::string, Wide> label_table = {{"accuracy", MultilabelAccuracy},
                                                          {"precision", MultilabelPrecision},
                                                          {"recall", MultilabelRecall},
                                                          {"specificity", MultilabelSpecificity},
                                                          {"balanced_accuracy", MultilabelBalancedAccuracy},
                                                          {"jaccard_index", MultilabelJaccardIndex},
                                                          {"iou", MultilabelIou},
                                                          {"hamming_loss", MultilabelHammingLoss},
                                                          {"fbeta", MultilabelFBeta},
                                                          {"fbeta_score", MultilabelFBeta},
                                                          {"f1", label_f1},
                                                          {"f1_score", label_f1},
                                                          {"auroc", MultilabelAuroc},
                                                          {"auprc", MultilabelAuprc},
                                                          {"mcc", MultilabelMcc}};
  return labels ? label_table : class_table;
}

std::optional<MetricFunc> TryDescriptor(const std::string& name, const nlohmann::json& args) {
  const MetricOptions options = MetricOptionsOf(args);
  const int64_t outputs = args.value("num_outputs", int64_t{1});
  const std::map<std::string, MetricFunc (*)(int64_t)> regression = {
      {"pearson", metrics::Pearson}, {"spearman", metrics::Spearman}, {"r2_score", metrics::R2Score},
      {"r2", metrics::R2Score},      {"mse", metrics::Mse},           {"rmse", metrics::Rmse},
      {"mae", metrics::Mae}};
  if (const auto found = regression.find(name); found != regression.end()) return found->second(outputs);
  const auto classes = Maybe<int64_t>(args, "num_classes"), labels = Maybe<int64_t>(args, "num_labels");
  const auto after = [&](const char* prefix) {
    return name.rfind(prefix, 0) == 0 ? name.substr(std::string(prefix).size()) : std::string();
  };
  if (name == "mcc") {
    if (classes) return metrics::MulticlassMcc(*classes, options);
    return labels ? metrics::MultilabelMcc(*labels, options) : metrics::BinaryMcc(options);
  }
  if (const auto found = BinaryDescriptors().find(after("binary_")); found != BinaryDescriptors().end())
    return found->second(options);
  for (const bool of_labels : {false, true}) {
    const auto& table = WideDescriptors(of_labels);
    const auto found = table.find(after(of_labels ? "multilabel_" : "multiclass_"));
    if (found != table.end()) return found->second((of_labels ? labels : classes).value_or(0), options);
  }
  return std::nullopt;
}

ReplayRules& CurrentRules() {
  static ReplayRules rules;
  return rules;
}

// The preprocessing that the shapes ask for.
Preprocess PreprocessFor(const LabeledBatch& batch, Scores scores) {
  const PreprocessOptions options{.scores = scores};
  const int64_t scores_each = batch.input.numel() / std::max<int64_t>(1, batch.target.numel());
  if (scores_each > 1) return Preprocess::Multiclass(scores_each, options);
  if (batch.target.dim() == 2 && batch.target.size(1) > 1) return Preprocess::Multilabel(batch.target.size(1), options);
  return Preprocess::Binary(options);
}

// Of a classification whose input and target fit; the case itself tells what happens to others.
bool IsClassification(const NestedValue& input, const NestedValue& target, bool float_labels) {
  try {
    const LabeledBatch batch = PackedPair(input, target);
    return (float_labels || !batch.target.is_floating_point()) && batch.target.numel() > 0 &&
           batch.input.numel() % batch.target.numel() == 0;
  } catch (const c10::Error&) {
    return false;
  }
}

}  // namespace

const ReplayRules& Rules() {
  return CurrentRules();
}

WithDefaults::WithDefaults(bool quirk) {
  CurrentRules().scores = PreprocessOptions{}.scores;
  if (!quirk) CurrentRules().missing = MetricOptions{}.missing;
}

WithDefaults::~WithDefaults() {
  CurrentRules() = {};
}

std::string UnderBothRules(const std::function<std::string()>& check, bool quirk) {
  std::string text = check();
  if (!text.empty()) return text;
  const WithDefaults defaults(quirk);
  text = check();
  return text.empty() ? "" : "with the defaults: " + text;
}

bool LooksLikeLogits(const NestedValue& input, const NestedValue& target, bool float_labels) {
  if (!IsClassification(input, target, float_labels)) return false;
  const LabeledBatch batch = PackedPair(input, target);
  const MaskedBatch applied = PreprocessFor(batch, Scores::kProbabilities).Apply(batch.input, batch.target);
  return applied.outside_of_range.item<int64_t>() > 0;
}

std::pair<NestedValue, NestedValue> AsDeclared(const NestedValue& input, const NestedValue& target, bool float_labels) {
  if (Rules().scores == Scores::kDetect || !LooksLikeLogits(input, target, float_labels)) return {input, target};
  const LabeledBatch batch = PackedPair(input, target);
  const MaskedBatch made = PreprocessFor(batch, Scores::kLogits).Apply(batch.input, batch.target);
  return {made.input.reshape(batch.input.sizes()), batch.target};
}

NestedValue BatchOf(const nlohmann::json& value) {
  if (IsTensor(value)) return TensorOf(value);
  const bool nested = value.is_object();
  if (!nested && !value.is_array()) TORCH_CHECK_TYPE(false, "a batch is a tensor or a list, not ", value.type_name());
  const nlohmann::json& items = nested ? value.at("elements") : value;
  if (!nested && (items.empty() || !items[0].is_array())) return FlatList(items);
  std::vector<torch::Tensor> rows;
  for (const auto& row : items) rows.push_back(IsTensor(row) ? TensorOf(row) : FlatList(row));
  if (nested) {
    for (torch::Tensor& row : rows) row = row.to(DtypeOf(value.at("dtype").get<std::string>()));
    return NestedTensor(rows);
  }
  for (const torch::Tensor& row : rows) {
    if (row.sizes() != rows[0].sizes()) return NestedTensor(rows);
  }
  return torch::stack(rows);
}

MetricOptions MetricOptionsOf(const nlohmann::json& args) {
  MetricOptions options;
  options.missing = Rules().missing;
  if (args.contains("average")) {
    const std::string name = args["average"].is_null() ? "none" : args["average"].get<std::string>();
    absl::StatusOr<metrics::Average> average = metrics::ParseAverage(name);
    TORCH_CHECK_VALUE(average.ok(), std::string(average.status().message()));
    options.average = *average;
  }
  options.threshold = args.value("threshold", options.threshold);
  options.k = args.value("k", options.k);
  options.beta = args.value("beta", options.beta);
  if (args.contains("ignore_index")) options.ignore_index = Maybe<int64_t>(args, "ignore_index");
  return options;
}

metrics::FunctionOptions FunctionOptionsOf(const nlohmann::json& args) {
  metrics::FunctionOptions options;
  static_cast<MetricOptions&>(options) = MetricOptionsOf(args);
  options.num_classes = Maybe<int64_t>(args, "num_classes");
  options.num_labels = Maybe<int64_t>(args, "num_labels");
  options.scores = Rules().scores;
  if (args.contains("task") && !args["task"].is_null()) {
    absl::StatusOr<MetricTask> task = ParseTask(args["task"].get<std::string>());
    TORCH_CHECK_VALUE(task.ok() && *task != MetricTask::kRegression, "no such task");
    options.task = *task;
  }
  return options;
}

MetricFunction FindFunction(const std::string& name) {
  static const MetricFunction f1 = [](const NestedValue& input, const NestedValue& target,
                                      const metrics::FunctionOptions& options) {
    return metrics::F1Score(input, target, options);
  };
  static const std::map<std::string, MetricFunction> functions = {{"accuracy", metrics::Accuracy},
                                                                  {"precision", metrics::Precision},
                                                                  {"recall", metrics::Recall},
                                                                  {"specificity", metrics::Specificity},
                                                                  {"balanced_accuracy", metrics::BalancedAccuracy},
                                                                  {"jaccard_index", metrics::JaccardIndex},
                                                                  {"iou", metrics::Iou},
                                                                  {"hamming_loss", metrics::HammingLoss},
                                                                  {"fbeta_score", metrics::FBetaScore},
                                                                  {"f1_score", f1},
                                                                  {"auroc", metrics::Auroc},
                                                                  {"auprc", metrics::Auprc}};
  const auto found = functions.find(name);
  return found == functions.end() ? nullptr : found->second;
}

bool IsDescriptor(const std::string& name) {
  const std::string plain = name.substr(name.find('_') + 1);
  const bool prefixed = name.rfind("binary_", 0) == 0 || name.rfind("multi", 0) == 0;
  return prefixed ? BinaryDescriptors().contains(plain) : TryDescriptor(name, {{"num_outputs", 1}}).has_value();
}

MetricFunc DescriptorOf(const std::string& name, const nlohmann::json& args) {
  std::optional<MetricFunc> found = TryDescriptor(name, args);
  if (!found) throw std::logic_error("the replay does not know the descriptor '" + name + "'");
  return *found;
}

Preprocess PreprocessOf(const nlohmann::json& spec) {
  const std::string name = spec.at("f").get<std::string>();
  const nlohmann::json args = spec.value("args", nlohmann::json::object());
  PreprocessOptions options{
      .ignore_index = -100, .ignore_nan = args.value("ignore_nan", true), .scores = Rules().scores};
  if (args.contains("ignore_index")) options.ignore_index = Maybe<int64_t>(args, "ignore_index");
  if (name == "preprocess_binary") return Preprocess::Binary(options);
  if (name == "preprocess_multiclass") return Preprocess::Multiclass(args.at("num_classes").get<int64_t>(), options);
  if (name == "preprocess_multilabel") return Preprocess::Multilabel(args.at("num_labels").get<int64_t>(), options);
  if (name == "preprocess_regression") return Preprocess::Regression(args.value("num_outputs", int64_t{1}), options);
  if (name != "base_preprocess") throw std::logic_error("the replay does not know '" + name + "'");
  options.ignore_nan = args.value("ignore_nan", false);
  options.ignore_index = Maybe<int64_t>(args, "ignore_index");
  return Preprocess::Base(options);
}

std::string CompareMetric(const nlohmann::json& expected, const torch::Tensor& found, const std::string& what) {
  if (IsTensor(expected)) {
    const torch::Tensor want = TensorOf(expected);
    return Compare(want, found.to(want.scalar_type()), want.scalar_type() == torch::kFloat64 ? 1e-6 : 0, what);
  }
  if (expected.is_array())
    return Compare(FlatList(expected).to(torch::kFloat64), found.to(torch::kFloat64), 1e-6, what);
  if (found.dim() != 0) return what + ": expected one number, found shape " + std::to_string(found.dim()) + " dims";
  return Compare(Number(expected), found.item<double>(), 1e-6, what);
}

std::string CompareMetrics(const nlohmann::json& expected, const MetricValues& found, const std::string& what) {
  if (expected.size() != found.size())
    return what + ": expected " + expected.dump() + ", found " + std::to_string(found.size()) + " values";
  for (const auto& [name, value] : expected.items()) {
    const torch::Tensor* one = FindValue(found, name);
    if (one == nullptr) return what + ": no value '" + name + "'";
    if (std::string text = CompareMetric(value, *one, what + "." + name); !text.empty()) return text;
  }
  return "";
}

bool IsError(const nlohmann::json& expected) {
  return expected.is_object() && expected.contains("error");
}

std::string KindOfFailure(const std::function<absl::Status()>& run) {
  try {
    const absl::Status status = run();
    if (status.ok()) return "";
    if (absl::IsNotFound(status)) return "KeyError";
    // Recorded as ValueError: an argument, and scores or labels that do not fit.
    return "ValueError";
  } catch (const c10::TypeError&) {
    return "TypeError";
  } catch (const c10::IndexError&) {
    return "IndexError";
  } catch (const c10::Error&) {
    return "ValueError";
  }
}

std::string CheckFailure(const nlohmann::json& expected, const std::function<absl::Status()>& run) {
  const std::string wanted = expected.at("error").get<std::string>(), found = KindOfFailure(run);
  if (found == wanted) return "";
  // torch reports sizes as RuntimeError where the recorder's library has ValueError, and the other way round.
  if (found == "ValueError" && wanted == "RuntimeError") return "";
  return "expected " + wanted + " (" + expected.value("message", "") + "), found " +
         (found.empty() ? "no error" : found);
}

}  // namespace athanor::oracle

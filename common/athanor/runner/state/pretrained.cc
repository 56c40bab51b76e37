#include "athanor/runner/state/pretrained.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/checkpoint_reader.h"
#include "athanor/exchange/convert.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/runner/state/weight_names.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr size_t kShownNames = 5;

bool IsWeight(const std::string& name) {
  return absl::StartsWith(name, "model.") || absl::StartsWith(name, "ema.");
}

TensorMap WeightsOfCheckpoint(const TensorMap& tensors) {
  TensorMap weights;
  for (const auto& [name, tensor] : tensors) {
    if (absl::StartsWith(name, "model.")) weights.emplace(name.substr(6), tensor);
  }
  for (const auto& [name, tensor] : tensors) {
    if (absl::StartsWith(name, "ema.")) weights[name.substr(4)] = tensor;
  }
  return weights;
}

absl::StatusOr<TensorMap> WeightsAt(const std::string& path, std::vector<std::string>* skipped) {
  std::error_code error;
  const absl::StatusOr<TensorFormat> format = DetectTensorFormat(path);
  if (format.ok() && (*format == TensorFormat::kHuggingFace || *format == TensorFormat::kTorchDistributed ||
                      *format == TensorFormat::kDeepSpeed)) {
    ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenTensorSource(path, *format));
    return ReadWeightsOf(*source, /*average=*/true, skipped);
  }
  const bool named =  // "<root>/latest", "<root>/best.pointer"
      std::filesystem::exists(path + ".pointer", error) || std::filesystem::path(path).extension() == ".pointer";
  if (named || std::filesystem::is_directory(path, error)) {
    ASSIGN_OR_RETURN(const ResumeCandidate candidate, CandidateAt(path));
    ASSIGN_OR_RETURN(const RestoredState restored, ReadCheckpoint(candidate, 0, 1, {}, IsWeight));
    TensorMap weights = WeightsOfCheckpoint(restored.state.replicated);
    if (weights.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": holds no weights of a model"));
    return weights;
  }
  ASSIGN_OR_RETURN(TensorFile file, ReadStateDictFile(path));
  if (file.tensors.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": holds no tensors",
                     file.skipped.empty() ? "" : absl::StrCat("; there are: ", ShortList(file.skipped))));
  }
  if (skipped != nullptr) *skipped = std::move(file.skipped);
  // A shard of a checkpoint holds more than the model.
  size_t of_model = 0;
  for (const auto& [name, tensor] : file.tensors) of_model += absl::StartsWith(name, "model.") ? 1 : 0;
  if (of_model > 0 && of_model < file.tensors.size()) return WeightsOfCheckpoint(file.tensors);
  return TensorMap(file.tensors.begin(), file.tensors.end());
}

}  // namespace

std::string ShortList(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kShownNames);
  std::string text = absl::StrJoin(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", ");
  if (shown < names.size()) absl::StrAppend(&text, " and ", names.size() - shown, " more");
  return text;
}

std::string WeightsReport::ToString() const {
  std::string text = absl::StrCat(loaded.size(), " tensors loaded");
  if (!prefix.empty()) absl::StrAppend(&text, " from the names with '", prefix, "' in front");
  if (!missing.empty()) absl::StrAppend(&text, "; missing in the file: ", ShortList(missing));
  if (!mismatched.empty()) absl::StrAppend(&text, "; of another shape: ", ShortList(mismatched));
  if (!unexpected.empty()) absl::StrAppend(&text, "; not in the model: ", ShortList(unexpected));
  return text;
}

absl::StatusOr<TensorMap> ReadWeights(const std::string& path, std::vector<std::string>* skipped) {
  return WeightsAt(path, skipped);
}

absl::Status ExportWeights(const std::string& from, const std::string& to, const ExportOptions& options) {
  return ConvertTensors(from, to, {.average = options.average, .dtype = options.dtype}).status();
}

absl::StatusOr<WeightsReport> LoadWeights(const TensorMap& weights, const WeightsOptions& options,
                                          torch::nn::Module* model) {
  torch::OrderedDict<std::string, torch::Tensor> targets = model->named_parameters();
  for (const auto& item : model->named_buffers()) {
    if (item.value().defined()) targets.insert(item.key(), item.value());
  }
  std::vector<std::string> found_names;
  std::set<std::string> wanted;
  for (const auto& [name, tensor] : weights) found_names.push_back(name);
  for (const auto& item : targets) wanted.insert(item.key());
  ASSIGN_OR_RETURN(const NameMap map, MapNames(found_names, wanted, options.rename));
  TensorMap given;
  // What fits goes before what only has such a name in its own place.
  for (const bool fitting : {true, false}) {
    for (const auto& [name, target] : map.names) {
      if ((name != target || map.prefix.empty()) == fitting) given.emplace(target, weights.at(name));
    }
  }
  // One name is enough for a tensor that has several (tied weights): PyTorch's safetensors writes no more.
  for (const auto& [first, others] : TiedNames(*model)) {
    std::vector<std::string> names = {first};
    names.insert(names.end(), others.begin(), others.end());
    const auto known = std::find_if(names.begin(), names.end(), [&](const auto& name) { return given.contains(name); });
    if (known == names.end()) continue;
    for (const std::string& name : names) given.emplace(name, given.at(*known));
  }
  WeightsReport report;
  report.prefix = map.prefix;
  for (const auto& item : targets) {
    const auto found = given.find(item.key());
    if (found == given.end()) {
      report.missing.push_back(item.key());
    } else if (found->second.sizes() != item.value().sizes()) {
      report.mismatched.push_back(absl::StrCat(item.key(), ": ", c10::str(found->second.sizes()), " in the file, ",
                                               c10::str(item.value().sizes()), " in the model"));
    } else {
      report.loaded.push_back(item.key());
    }
  }
  for (const auto& [name, tensor] : given) {
    if (!targets.contains(name)) report.unexpected.push_back(name);
  }
  const bool fits = report.missing.empty() && report.mismatched.empty();
  if (report.loaded.empty() || (options.strict && !fits)) {
    return WithFailureKind(absl::InvalidArgumentError(absl::StrCat("weights do not fit: ", report.ToString())),
                           FailureKind::kInvalid);
  }
  RETURN_IF_ERROR(RunTorch("loading weights", [&] {
    torch::NoGradGuard no_grad;
    for (const std::string& name : report.loaded) {
      if (options.write) {
        options.write(targets[name], given.at(name));
      } else {
        targets[name].copy_(given.at(name));
      }
    }
  }));
  return report;
}

}  // namespace athanor

#include "athanor/exchange/convert.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <regex>
#include <set>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/exchange/tensor_sink.h"
#include "athanor/io/dtype_names.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

struct Section {
  std::string_view prefix;
  TensorRole part;
};
constexpr Section kOfCheckpoint[] = {
    {"model.", TensorRole::kWeight}, {"ema.", TensorRole::kAverage}, {"optim.", TensorRole::kOptimizer}};
constexpr Section kOfPython[] = {
    {"model.", TensorRole::kWeight},        {"module.", TensorRole::kWeight},
    {"state_dict.", TensorRole::kWeight},   {"model_state_dict.", TensorRole::kWeight},
    {"ema.", TensorRole::kAverage},         {"optim.", TensorRole::kOptimizer},
    {"optimizer.", TensorRole::kOptimizer}, {"optimizer_state_dict.", TensorRole::kOptimizer}};
constexpr std::string_view kState = "state.";

template <size_t N>
std::optional<PartName> InSection(const std::string& name, const Section (&sections)[N]) {
  for (const Section& section : sections) {
    if (!absl::StartsWith(name, {section.prefix.data(), section.prefix.size()})) continue;
    return PartName{section.part, name.substr(section.prefix.size())};
  }
  return std::nullopt;
}

const char* PrefixOf(TensorRole part) {
  switch (part) {
    case TensorRole::kWeight:
      return "model.";
    case TensorRole::kAverage:
      return "ema.";
    case TensorRole::kOptimizer:
      return "optim.";
    case TensorRole::kOther:
      break;
  }
  return "";
}

absl::StatusOr<std::string> Renamed(std::string name, const std::vector<std::pair<std::string, std::string>>& rules) {
  for (const auto& [expression, replacement] : rules) {
    try {
      name = std::regex_replace(name, std::regex(expression), replacement);
    } catch (const std::regex_error& error) {
      return absl::InvalidArgumentError(
          absl::StrCat("rename: '", expression, "' is no ECMAScript expression: ", error.what()));
    }
  }
  return name;
}

absl::StatusOr<TensorFormat> TargetFormat(const std::string& to, TensorFormat asked) {
  const std::string ending = std::filesystem::path(to).extension().string();
  const bool python = ending == ".pt" || ending == ".pth";
  if (asked == TensorFormat::kAuto && (python || ending == ".safetensors"))
    return python ? TensorFormat::kTorchSave : TensorFormat::kSafetensors;
  if (asked == TensorFormat::kDeepSpeed)
    return absl::InvalidArgumentError("format: deepspeed is read only; allowed: athanor, safetensors, hf, pt, dcp");
  if (asked != TensorFormat::kAuto) return asked;
  return absl::InvalidArgumentError(
      absl::StrCat(to, ": found ending '", ending, "'; allowed: .safetensors, .pt, .pth"));
}

struct Move {
  std::string from;  // name in the source
  StateDictEntry to;
};

// What of the source is written under which name.
class Selection {
 public:
  Selection(TensorSource& source, const ConvertOptions& options, TensorFormat target, ConvertReport* report)
      : source_(source),
        options_(options),
        all_(target == TensorFormat::kCheckpoint || IsAll(options)),
        report_(*report) {}

  absl::StatusOr<std::vector<Move>> Choose(std::optional<torch::ScalarType> dtype) {
    std::vector<std::pair<std::string, bool>> names;
    std::vector<std::string> from;
    const bool before = !source_.of_checkpoint();  // what a checkpoint's names begin with is ours, not the user's
    for (const auto& [name, tensor] : source_.tensors()) {
      ASSIGN_OR_RETURN(std::string renamed, before ? Renamed(name, options_.rename) : name);
      names.emplace_back(std::move(renamed), tensor.nested);
      from.push_back(name);
    }
    std::vector<PartName> parts = PartsOf(names, source_.of_checkpoint());
    for (PartName& part : parts) {
      if (!before) {
        ASSIGN_OR_RETURN(part.name, Renamed(part.name, options_.rename));
      }
    }
    for (const bool average : {false, true}) {  // an average replaces its weight
      for (size_t i = 0; i < parts.size(); ++i) {
        if ((parts[i].part == TensorRole::kAverage) == average)
          RETURN_IF_ERROR(Take(from[i], names[i].first, parts[i]));
      }
    }
    std::vector<Move> moves;
    std::map<std::pair<std::string, torch::ScalarType>, size_t> first;  // of tied weights, by the source's first name
    for (const auto& [target, name] : taken_) {
      const SourceTensor& tensor = source_.tensors().at(name);
      const bool weight = !absl::StartsWith(target, "optim.") || !all_;
      const bool cast = dtype.has_value() && weight && torch::isFloatingType(tensor.dtype);
      const torch::ScalarType written = cast ? *dtype : tensor.dtype;
      const size_t same = first.emplace(std::pair(tensor.same_as, written), moves.size()).first->second;
      moves.push_back({name, {target, written, tensor.shape, same}});
    }
    return moves;
  }

 private:
  static bool IsAll(const ConvertOptions& options) { return options.content == TensorContent::kAll; }

  absl::Status Take(const std::string& from, const std::string& renamed, const PartName& part) {
    const bool wanted =
        all_ ? part.part != TensorRole::kOther
             : part.part == TensorRole::kWeight || (part.part == TensorRole::kAverage && options_.average);
    if (!wanted) {
      if (part.part == TensorRole::kOther) report_.skipped.push_back(absl::StrCat(renamed, ": a tensor"));
      return absl::OkStatus();
    }
    const std::string target = all_ ? absl::StrCat(PrefixOf(part.part), part.name) : part.name;
    const auto [found, fresh] = taken_.emplace(target, from);
    if (!fresh && (all_ || part.part != TensorRole::kAverage))
      return absl::InvalidArgumentError(
          absl::StrCat("'", found->second, "' and '", from, "' both become '", target, "'"));
    found->second = from;
    return absl::OkStatus();
  }

  TensorSource& source_;
  const ConvertOptions& options_;
  const bool all_;
  ConvertReport& report_;
  std::map<std::string, std::string> taken_;  // name in the target -> in the source
};

absl::StatusOr<torch::Tensor> ReadAs(TensorSource& source, const Move& move) {
  ASSIGN_OR_RETURN(const torch::Tensor tensor, source.Read(move.from));
  return RunTorch(absl::StrCat("converting ", move.from), [&] { return tensor.to(move.to.dtype).contiguous(); });
}

absl::Status Write(TensorSource& source, const std::vector<Move>& moves, TensorSink& sink, ConvertReport* report) {
  std::vector<StateDictEntry> entries;
  entries.reserve(moves.size());
  for (const Move& move : moves) entries.push_back(move.to);
  RETURN_IF_ERROR(sink.Begin(entries));
  for (const bool measure : {true, false}) {
    if (measure && !sink.measures()) continue;
    for (size_t i = 0; i < moves.size(); ++i) {
      if (sink.keeps_ties() && moves[i].to.same_as != i) continue;
      ASSIGN_OR_RETURN(const torch::Tensor tensor, ReadAs(source, moves[i]));
      RETURN_IF_ERROR(measure ? sink.Measure(i, tensor) : sink.Add(i, tensor));
      if (!measure) report->bytes += static_cast<int64_t>(tensor.nbytes());
    }
  }
  report->tensors = static_cast<int64_t>(moves.size());
  return sink.Finish();
}

std::unique_ptr<TensorSink> NewSink(const std::string& from, const std::string& to, TensorFormat format,
                                    const ConvertOptions& options) {
  switch (format) {
    case TensorFormat::kCheckpoint:
      return NewCheckpointSink(to, options.step, from);
    case TensorFormat::kHuggingFace:
      return NewHuggingFaceSink(to, options.max_shard_bytes);
    case TensorFormat::kTorchSave:
      return NewTorchSaveSink(to);
    case TensorFormat::kTorchDistributed:
      return NewTorchDistributedSink(to, options.content == TensorContent::kAll);
    case TensorFormat::kSafetensors:
    case TensorFormat::kDeepSpeed:
    case TensorFormat::kAuto:
      break;
  }
  return NewSafetensorsSink(to);
}

}  // namespace

std::vector<PartName> PartsOf(const std::vector<std::pair<std::string, bool>>& names, bool of_checkpoint) {
  std::vector<PartName> parts;
  if (of_checkpoint) {
    for (const auto& [name, nested] : names)
      parts.push_back(InSection(name, kOfCheckpoint).value_or(PartName{TensorRole::kOther, name}));
    return parts;
  }
  const bool sections = std::any_of(names.begin(), names.end(),
                                    [](const auto& one) { return one.second && InSection(one.first, kOfPython); });
  for (const auto& [name, nested] : names) {
    PartName part{sections ? TensorRole::kOther : TensorRole::kWeight, name};
    if (sections && nested) part = InSection(name, kOfPython).value_or(part);
    if (part.part == TensorRole::kOptimizer && absl::StartsWith(part.name, {kState.data(), kState.size()}))
      part.name = part.name.substr(kState.size());
    parts.push_back(std::move(part));
  }
  return parts;
}

absl::StatusOr<std::map<std::string, torch::Tensor>> ReadWeightsOf(TensorSource& source, bool average,
                                                                   std::vector<std::string>* skipped) {
  ConvertReport report;
  const ConvertOptions options{.average = average};
  ASSIGN_OR_RETURN(const std::vector<Move> moves,
                   Selection(source, options, TensorFormat::kSafetensors, &report).Choose(std::nullopt));
  std::map<std::string, torch::Tensor> weights;
  for (const Move& move : moves) {
    const std::string& first = moves[move.to.same_as].to.name;
    if (first != move.to.name) {
      weights[move.to.name] = weights.at(first);
      continue;
    }
    ASSIGN_OR_RETURN(weights[move.to.name], ReadAs(source, move));
  }
  if (skipped != nullptr) *skipped = std::move(report.skipped);
  return weights;
}

absl::StatusOr<ConvertReport> ConvertTensors(const std::string& from, const std::string& to,
                                             const ConvertOptions& options) {
  ConvertReport report;
  ASSIGN_OR_RETURN(report.to, TargetFormat(to, options.format));
  const std::optional<torch::ScalarType> dtype = DtypeOfOption(options.dtype);
  if (!options.dtype.empty() && !dtype.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: found '", options.dtype, "'; allowed: ", NamesOf(&DtypeNames::option, ", ")));
  }
  if (options.max_shard_bytes < 1 || options.step < 0) {
    return absl::InvalidArgumentError(absl::StrCat("found shards of ", options.max_shard_bytes, " bytes and step ",
                                                   options.step, "; allowed: at least 1, at least 0"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenTensorSource(from, options.from));
  report.from = source->format();
  report.skipped = source->skipped();
  Selection selection(*source, options, report.to, &report);
  ASSIGN_OR_RETURN(const std::vector<Move> moves, selection.Choose(dtype));
  if (moves.empty()) {
    std::string others;
    for (size_t i = 0; i < std::min<size_t>(report.skipped.size(), 5); ++i)
      absl::StrAppend(&others, i == 0 ? "; there are: " : ", ", report.skipped[i]);
    return absl::InvalidArgumentError(absl::StrCat(
        from, source->of_checkpoint() ? ": holds no weights of a model" : ": holds no tensors to write", others));
  }
  const std::unique_ptr<TensorSink> sink = NewSink(from, to, report.to, options);
  RETURN_IF_ERROR(Write(*source, moves, *sink, &report));
  report.path = report.to == TensorFormat::kCheckpoint
                    ? (std::filesystem::path(to) / CheckpointDirName(options.step)).string()
                    : to;
  return report;
}

}  // namespace athanor

#include "worker/trainer/convert_command.h"

#include <nlohmann/json.hpp>
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

absl::Status SetNumber(absl::string_view text, const std::string& word, int64_t* number) {
  return absl::SimpleAtoi(text, number) ? absl::OkStatus()
                                        : absl::InvalidArgumentError(absl::StrCat(word, ": allowed: an integer"));
}

absl::Status SetOption(const std::string& word, ConvertOptions* options) {
  absl::string_view text = word;
  if (absl::ConsumePrefix(&text, "--from-format=")) {
    ASSIGN_OR_RETURN(options->from, ParseTensorFormat(std::string(text)));
  } else if (absl::ConsumePrefix(&text, "--format=")) {
    ASSIGN_OR_RETURN(options->format, ParseTensorFormat(std::string(text)));
  } else if (absl::ConsumePrefix(&text, "--dtype=")) {
    options->dtype = std::string(text);
  } else if (absl::ConsumePrefix(&text, "--content=")) {
    if (text != "weights" && text != "all")
      return absl::InvalidArgumentError(absl::StrCat("content: found '", text, "'; allowed: weights, all"));
    options->content = text == "all" ? TensorContent::kAll : TensorContent::kWeights;
  } else if (absl::ConsumePrefix(&text, "--rename=")) {
    const size_t equals = text.find('=');
    if (equals == 0 || equals == absl::string_view::npos)
      return absl::InvalidArgumentError(absl::StrCat("rename: found '", text, "'; allowed: EXPRESSION=TEXT"));
    options->rename.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  } else if (absl::ConsumePrefix(&text, "--max-shard-bytes=")) {
    return SetNumber(text, word, &options->max_shard_bytes);
  } else if (absl::ConsumePrefix(&text, "--step=")) {
    return SetNumber(text, word, &options->step);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("no option '", word, "'"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConvertCommand> ParseConvertCommand(const std::vector<std::string>& words) {
  if (words.size() < 2) return absl::InvalidArgumentError("allowed: FROM TO and options");
  ConvertCommand command{words[0], words[1], {}};
  for (size_t i = 2; i < words.size(); ++i) RETURN_IF_ERROR(SetOption(words[i], &command.options));
  return command;
}

std::string ToJson(const ConvertReport& report) {
  return nlohmann::json({{"from", ToString(report.from)},
                         {"to", ToString(report.to)},
                         {"path", report.path},
                         {"tensors", report.tensors},
                         {"bytes", report.bytes},
                         {"skipped", report.skipped}})
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace athanor

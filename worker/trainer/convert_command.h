// What `athanor checkpoint import` and `export` let this program do: tensors from one format into another.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/exchange/convert.h"

namespace athanor {

struct ConvertCommand {
  std::string from, to;
  ConvertOptions options;
};

// FROM TO [--from-format=F] [--format=F] [--dtype=D] [--content=weights|all] [--rename=EXPRESSION=TEXT]…
// [--max-shard-bytes=N] [--step=N]. INVALID_ARGUMENT says what is wrong with which.
absl::StatusOr<ConvertCommand> ParseConvertCommand(const std::vector<std::string>& words);

// The report as one line of JSON: from, to (formats), path, tensors, bytes, skipped.
std::string ToJson(const ConvertReport& report);

}  // namespace athanor

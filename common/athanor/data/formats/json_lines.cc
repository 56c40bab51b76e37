#include "athanor/data/formats/json_lines.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/ragged_dataset.h"
#include "athanor/io/tensor_file.h"

namespace athanor {
namespace {

using nlohmann::json;

constexpr size_t kErrorsKept = 20;
constexpr size_t kMaxDims = 63;  // of a sample: LibTorch takes 64, and samples are stacked

// Numbers of one line, or of a column: exact as integers as long as all are whole.
struct Numbers {
  std::vector<double> values;
  std::vector<int64_t> wholes;  // as many, while `whole`
  bool whole = true;

  void Push(const json& number) {
    const double value = number.is_boolean() ? number.get<bool>() : number.get<double>();
    values.push_back(value);
    const bool exact = !number.is_number_float() &&
                       !(number.is_number_unsigned() &&
                         number.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
    if (exact) {
      PushWhole(number.is_boolean() ? number.get<bool>() : number.get<int64_t>());
    } else if (std::abs(value) < 0x1p63 && std::trunc(value) == value) {
      PushWhole(static_cast<int64_t>(value));
    } else {
      whole = false;
    }
  }
  void Append(const Numbers& other) {
    values.insert(values.end(), other.values.begin(), other.values.end());
    whole = whole && other.whole;
    if (whole) wholes.insert(wholes.end(), other.wholes.begin(), other.wholes.end());
  }
  // int64, or float32.
  torch::Tensor Tensor(const std::vector<int64_t>& sizes, bool integer) const {
    if (integer) return torch::tensor(wholes, torch::kInt64).reshape(sizes);
    return torch::tensor(values, torch::kFloat64).reshape(sizes).to(torch::kFloat32);
  }

 private:
  void PushWhole(int64_t number) {
    if (whole) wholes.push_back(number);
  }
};

// One column: rows of numbers of one shape.
struct Column {
  std::vector<int64_t> shape;
  Numbers numbers;
  bool empty = true;

  // Adds the numbers of `value` to `row`, the extents on its way to `found`. False: something else is in it.
  static bool Flatten(const json& value, size_t depth, std::vector<int64_t>* found, Numbers* row) {
    if (!value.is_array()) {
      if (!value.is_number() && !value.is_boolean()) return false;
      row->Push(value);
      return depth == found->size();
    }
    const auto extent = static_cast<int64_t>(value.size());
    if (depth == found->size() && row->values.empty() && depth < kMaxDims) found->push_back(extent);
    if (depth >= found->size() || (*found)[depth] != extent) return false;
    for (const json& item : value) {
      if (!Flatten(item, depth + 1, found, row)) return false;
    }
    return true;
  }

  std::string Add(const json& object, const std::string& name, Numbers* row) {
    const auto found = object.find(name);
    if (found == object.end()) return absl::StrCat("no \"", name, "\"");
    std::vector<int64_t> own;
    if (!Flatten(*found, 0, &own, row)) return absl::StrCat("\"", name, "\" is no number and no even list of numbers");
    if (!empty && own != shape) {
      return absl::StrCat("\"", name, "\" has shape [", absl::StrJoin(own, ", "), "]; allowed: [",
                          absl::StrJoin(shape, ", "), "] as before");
    }
    shape = own;
    return "";
  }
  void Take(const Numbers& row) {
    empty = false;
    numbers.Append(row);
  }
  torch::Tensor Tensor(int64_t rows, bool integer) const {
    std::vector<int64_t> sizes = {rows};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    return numbers.Tensor(sizes, integer);
  }
  bool whole() const { return numbers.whole; }
};

// The text of a field's value, a number or lists of them; all of the line when the key is written in another way.
std::string_view ValueText(std::string_view line, const std::string& name) {
  const std::string key = absl::StrCat("\"", name, "\"");
  for (size_t at = line.rfind(key); at != std::string_view::npos; at = at == 0 ? at - 1 : line.rfind(key, at - 1)) {
    const size_t colon = line.find_first_not_of(" \t", at + key.size());
    if (colon == std::string_view::npos || line[colon] != ':') continue;
    size_t end = colon + 1;
    for (int depth = 0; end < line.size(); ++end) {
      if (line[end] == '[') ++depth;
      if (line[end] == ']') --depth;
      if (line[end] == '}' || (line[end] == ',' && depth == 0)) break;
    }
    return line.substr(colon + 1, end - colon - 1);
  }
  return line;
}

// A number so large that the parser gave the nearest double for it, where it was written as an integer.
bool WasRounded(const Numbers& numbers, const std::string& line, const std::string& name) {
  const auto large = [](double value) { return std::abs(value) >= 0x1p63; };
  return !numbers.whole && std::any_of(numbers.values.begin(), numbers.values.end(), large) &&
         HoldsHugeInteger(ValueText(line, name));
}

// Calls `line` with every line that is not blank: its number, value and text. A line that is no JSON comes as
// discarded.
absl::Status ForEachLine(const std::string& path,
                         const std::function<absl::Status(size_t, const json&, const std::string&)>& line) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return FileError(errno == 0 ? ENOENT : errno, "opening", path);
  std::string text;
  for (size_t number = 1; std::getline(file, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    RETURN_IF_ERROR(line(number, ParseJsonText(text), text));
  }
  return file.bad() ? absl::DataLossError(absl::StrCat(path, ": reading failed")) : absl::OkStatus();
}

std::string NoObject(const json& value, const std::string& line) {
  return value.is_discarded() ? absl::StrCat("found no JSON object: ", JsonProblem(line)) : "found no JSON object";
}

}  // namespace

absl::StatusOr<std::vector<json>> ReadJsonLines(const std::string& path) {
  std::vector<json> lines;
  RETURN_IF_ERROR(ForEachLine(path, [&](size_t number, const json& value, const std::string& line) {
    if (value.is_discarded()) return absl::DataLossError(absl::StrCat(path, ":", number, ": ", JsonProblem(line)));
    lines.push_back(value);
    return absl::OkStatus();
  }));
  return lines;
}

absl::StatusOr<JsonLinesDataset> OpenJsonLines(const std::string& path, const JsonLinesOptions& options) {
  Column input, target;
  JsonLinesDataset result;
  int64_t rows = 0;
  RETURN_IF_ERROR(ForEachLine(path, [&](size_t number, const json& value, const std::string& line) {
    Numbers x, y;
    std::string problem = value.is_object() ? input.Add(value, options.input, &x) : NoObject(value, line);
    if (problem.empty() && !options.target.empty()) problem = target.Add(value, options.target, &y);
    if (problem.empty() && WasRounded(y, line, options.target))
      problem = absl::StrCat("\"", options.target, "\" holds an integer beyond 64 bits");
    if (problem.empty()) {
      input.Take(x);
      target.Take(y);
      ++rows;
      return absl::OkStatus();
    }
    const std::string message = absl::StrCat(path, ":", number, ": ", problem);
    if (!options.skip_damaged) return absl::DataLossError(message);
    ++result.skipped;
    if (result.errors.size() < kErrorsKept) result.errors.push_back(message);
    return absl::OkStatus();
  }));
  if (rows == 0) return absl::DataLossError(absl::StrCat(path, ": no rows"));
  ASSIGN_OR_RETURN(result.dataset,
                   TensorDataset::Make(input.Tensor(rows, false),
                                       options.target.empty() ? torch::Tensor() : target.Tensor(rows, target.whole())));
  return result;
}

namespace {

// Lists of any length, one a line.
struct RaggedColumn {
  std::vector<torch::Tensor> rows;  // int64, else float64
  bool whole = true;

  std::string Add(const json& object, const std::string& name, const std::string& line) {
    Column column;  // of this line alone: the next may be longer
    Numbers numbers;
    if (std::string problem = column.Add(object, name, &numbers); !problem.empty()) return problem;
    if (column.shape.empty()) return absl::StrCat("\"", name, "\" is no list");
    if (!rows.empty() && static_cast<int64_t>(column.shape.size()) != rows[0].dim()) {
      return absl::StrCat("\"", name, "\" has ", column.shape.size(), " dims; allowed: ", rows[0].dim(), " as before");
    }
    if (WasRounded(numbers, line, name)) return absl::StrCat("\"", name, "\" holds an integer beyond 64 bits");
    whole = whole && numbers.whole;
    rows.push_back(
        (numbers.whole ? torch::tensor(numbers.wholes, torch::kInt64) : torch::tensor(numbers.values, torch::kFloat64))
            .reshape(column.shape));
    return "";
  }
  std::vector<torch::Tensor> Tensors() const {
    std::vector<torch::Tensor> tensors;
    for (const torch::Tensor& row : rows) tensors.push_back(row.to(whole ? torch::kInt64 : torch::kFloat32));
    return tensors;
  }
};

}  // namespace

absl::StatusOr<std::shared_ptr<RaggedDataset>> OpenRaggedJsonLines(const std::string& path, const FieldNames& names,
                                                                   TargetSizes targets) {
  RaggedColumn inputs, ragged;
  Column target;
  RETURN_IF_ERROR(ForEachLine(path, [&](size_t number, const json& value, const std::string& line) {
    Numbers y;
    std::string problem = value.is_object() ? inputs.Add(value, names.input, line) : NoObject(value, line);
    if (problem.empty() && !names.target.empty()) {
      problem =
          targets == TargetSizes::kAny ? ragged.Add(value, names.target, line) : target.Add(value, names.target, &y);
    }
    if (problem.empty() && WasRounded(y, line, names.target))
      problem = absl::StrCat("\"", names.target, "\" holds an integer beyond 64 bits");
    if (!problem.empty()) return absl::DataLossError(absl::StrCat(path, ":", number, ": ", problem));
    target.Take(y);
    return absl::OkStatus();
  }));
  const auto rows = static_cast<int64_t>(inputs.rows.size());
  if (rows == 0) return absl::DataLossError(absl::StrCat(path, ": no rows"));
  if (targets == TargetSizes::kAny) return RaggedDataset::MakeWithRaggedTargets(inputs.Tensors(), ragged.Tensors());
  return RaggedDataset::Make(inputs.Tensors(),
                             names.target.empty() ? torch::Tensor() : target.Tensor(rows, target.whole()));
}

absl::StatusOr<std::shared_ptr<TensorDataset>> OpenSafetensors(const std::string& path, const FieldNames& names) {
  ASSIGN_OR_RETURN(const TensorFile file, ReadTensorFile(path));
  const auto tensor = [&](const std::string& name) -> absl::StatusOr<torch::Tensor> {
    const auto found = file.tensors.find(name);
    if (found != file.tensors.end()) return found->second;
    std::vector<std::string> known;
    for (const auto& [other, value] : file.tensors) known.push_back(other);
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no tensor \"", name, "\"; there are: ", absl::StrJoin(known, ", ")));
  };
  ASSIGN_OR_RETURN(const torch::Tensor input, tensor(names.input));
  torch::Tensor target;
  if (!names.target.empty()) {
    ASSIGN_OR_RETURN(target, tensor(names.target));
  }
  absl::StatusOr<std::shared_ptr<TensorDataset>> dataset = TensorDataset::Make(input, target);
  if (!dataset.ok()) return Annotate(dataset.status(), path);
  return dataset;
}

}  // namespace athanor

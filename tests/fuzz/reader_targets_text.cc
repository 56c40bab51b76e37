#include <cmath>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "athanor/base/json_text.h"
#include "athanor/config/config_identity.h"
#include "athanor/config/config_loader.h"
#include "athanor/data/formats/json_lines.h"
#include "athanor/data/ragged_dataset.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/tools/config_file.h"
#include "athanor/tools/load_save.h"
#include "athanor/tools/table.h"
#include "athanor/tools/yaml_json.h"
#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/reader_targets.h"

namespace athanor::fuzz {
namespace {

using nlohmann::json;

constexpr char kName[] = "some file";

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void CheckSamples(const Dataset& dataset, const std::string& path) {
  Promise(dataset.size() > 0, "there is a sample");
  std::vector<int64_t> all;
  for (int64_t i = 0; i < std::min<int64_t>(dataset.size(), 64); ++i) all.push_back(i);
  all.push_back(dataset.size() - 1);
  const absl::StatusOr<Batch> batch = dataset.Get(all);
  if (!Accepted(batch.status(), path, {kDataLoss})) return;
  Promise(batch->size == static_cast<int64_t>(all.size()), "a batch has its samples");
  if (batch->ragged.has_value()) {
    Promise(batch->ragged->size(0) == batch->size, "ragged samples can be read");
  } else {
    CheckTensor(batch->input);
  }
  if (batch->target.defined()) CheckTensor(batch->target);
}

bool SameNumber(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

void CheckSame(const Table& a, const Table& b) {
  Promise(a.rows() == b.rows() && a.columns().size() == b.columns().size(), "a table comes back with its size");
  for (size_t c = 0; c < a.columns().size(); ++c) {
    const Column &one = a.columns()[c], &other = b.columns()[c];
    Promise(one.name == other.name, "column names come back");
    Promise(one.present == other.present && one.texts == other.texts && one.wholes == other.wholes &&
                one.type == other.type && one.numbers.size() == other.numbers.size(),
            "cells come back");
    for (size_t i = 0; i < one.numbers.size(); ++i)
      Promise(SameNumber(one.numbers[i], other.numbers[i]), "numbers come back");
  }
}

void UseTable(const Table& table) {
  for (size_t c = 0; c < table.columns().size(); ++c) {
    const Column& column = table.columns()[c];
    Promise(column.present.size() == static_cast<size_t>(table.rows()), "a column has a cell per row");
    const absl::StatusOr<torch::Tensor> numbers = table.Numbers(column.name);
    Promise(numbers.ok() == (column.type != ColumnType::kText), "numbers are given out");
    const absl::StatusOr<torch::Tensor> wholes = table.Wholes(column.name);
    for (int64_t row = 0; row < table.rows(); ++row) {
      const json cell = table.Cell(row, c);
      Promise(cell.is_null() == !column.present[static_cast<size_t>(row)], "a cell is there or missing");
      if (numbers.ok() && numbers->numel() > 0)
        Promise(cell.is_null() || cell.is_boolean() || SameNumber((*numbers)[row].item<double>(), cell.get<double>()),
                "a number is its cell");
    }
  }
  for (const char delimiter : {',', '\t'}) {
    const absl::StatusOr<Table> again = ParseCsv(kName, FormatCsv(table, delimiter), delimiter);
    if (table.columns().empty()) continue;  // rows of nothing cannot be written
    Promise(again.ok(), "what was read can be written and read");
    CheckSame(table, *again);
  }
}

}  // namespace

void Csv(std::string_view input) {
  const std::string path = Scratch("numbers.csv", input);
  for (const CsvOptions& options :
       {CsvOptions{}, CsvOptions{.header = true, .target_column = 0, .integer_target = false}}) {
    const absl::StatusOr<CsvTable> table = ReadCsv(path, options);
    if (!Accepted(table.status(), path, {kDataLoss})) continue;
    CheckTensor(table->features);
    CheckTensor(table->target);
    Promise(table->features.dim() == 2 && table->features.size(1) > 0, "rows of features");
    Promise(table->features.isfinite().all().item<bool>() && table->target.isfinite().all().item<bool>(), "numbers");
    Promise(!options.header || static_cast<int64_t>(table->columns.size()) == table->features.size(1) + 1, "names");
    const auto dataset = TensorDataset::Make(table->features, table->target);
    Promise(dataset.ok(), "a table is a dataset");
    CheckSamples(**dataset, path);
  }
}

void TableCsv(std::string_view input) {
  for (const char delimiter : {',', '\t'}) {
    const absl::StatusOr<Table> table = ParseCsv(kName, std::string(input), delimiter);
    if (Accepted(table.status(), kName, {kDataLoss})) UseTable(*table);
  }
}

void TableJsonLines(std::string_view input) {
  const absl::StatusOr<Table> table = ParseJsonLinesTable(kName, std::string(input));
  if (!Accepted(table.status(), kName, {kDataLoss})) return;
  size_t row = 0;
  for (const absl::string_view line : absl::StrSplit(absl::string_view(input.data(), input.size()), '\n')) {
    const json object = ParseJsonText({line.data(), line.size()});
    if (!object.is_object()) continue;
    for (size_t c = 0; c < table->columns().size(); ++c) {
      const auto found = object.find(table->columns()[c].name);
      const json cell = table->Cell(static_cast<int64_t>(row), c);
      Promise((found == object.end() || found->is_null()) == cell.is_null(), "what a line has not is missing");
      if (cell.is_number() && found->is_number()) Promise(cell.get<double>() == found->get<double>(), "a number stays");
      if (cell.is_number_integer()) Promise(cell == *found, "a whole number stays");
    }
    ++row;
  }
  Promise(row == static_cast<size_t>(table->rows()), "every line is a row");
  for (size_t c = 0; c < table->columns().size(); ++c) (void)table->Wholes(table->columns()[c].name);
  // Names with a byte order mark, line breaks and the like survive too.
  const absl::StatusOr<Table> again = ParseCsv(kName, FormatCsv(*table));
  if (!table->columns().empty()) Promise(again.ok() && again->rows() == table->rows(), "it can be written as CSV");
}

void JsonLines(std::string_view input) {
  const std::string path = Scratch("lines.jsonl", input);
  const absl::StatusOr<std::vector<json>> lines = ReadJsonLines(path);
  if (Accepted(lines.status(), path, {kDataLoss})) {
    for (const json& line : *lines) Promise(json(line) == line, "a line can be copied");
  }
  for (const bool skip : {false, true}) {
    JsonLinesOptions options;
    options.input = "x";
    options.target = skip ? "" : "y";
    options.skip_damaged = skip;
    const absl::StatusOr<JsonLinesDataset> read = OpenJsonLines(path, options);
    if (!Accepted(read.status(), path, {kDataLoss})) continue;
    Promise(skip || read->skipped == 0, "nothing is left out unasked");
    Promise(read->errors.size() == static_cast<size_t>(std::min<int64_t>(read->skipped, 20)),
            "what is left out is named");
    CheckSamples(*read->dataset, path);
  }
}

void RaggedJsonLines(std::string_view input) {
  const std::string path = Scratch("ragged.jsonl", input);
  for (const char* target : {"y", ""}) {
    FieldNames names;
    names.input = "x";
    names.target = target;
    const auto dataset = OpenRaggedJsonLines(path, names);
    if (Accepted(dataset.status(), path, {kDataLoss})) CheckSamples(**dataset, path);
  }
}

void JsonFile(std::string_view input) {
  for (const char* ending : {".json", ".jsonl"}) {
    const std::string path = Scratch(absl::StrCat("value", ending), input);
    const absl::StatusOr<Loaded> value = Load(path);
    if (!Accepted(value.status(), path, {kDataLoss})) continue;
    const json& read = std::get<json>(*value);
    const std::string copy = absl::StrCat(ScratchFolder(), "/copy", ending);
    Promise(Save(copy, read).ok(), "what was read can be written");
    const absl::StatusOr<Loaded> again = Load(copy);
    Promise(again.ok() && std::get<json>(*again) == read, "and read again");
  }
}

void Yaml(std::string_view input) {
  const std::string text(input);
  const absl::StatusOr<json> value = ParseYaml(text);
  const std::string path = Scratch("run.yaml", input);
  const absl::StatusOr<RunnerConfig> config = ReadRunConfigFile(path);
  (void)Accepted(config.status(), path, {kInvalid, kDataLoss});
  if (!Accepted(value.status(), "line ", {kInvalid})) {
    Promise(!config.ok(), "damaged YAML is no configuration");
    return;
  }
  const std::string written = FormatYaml(*value);
  if (absl::StrContains(written, "\xef\xbf\xbd")) return;  // yaml-cpp writes U+FFFD for U+FFFF and its like
  const absl::StatusOr<json> again = ParseYaml(written);
  if (!again.ok() || Dump(*again) != Dump(*value)) {
    std::fprintf(stderr, "%s\nwritten: %s\nagain: %s\n", Dump(*value).c_str(), written.c_str(),
                 again.ok() ? Dump(*again).c_str() : again.status().ToString().c_str());
  }
  Promise(again.ok(), "what was read can be written and read");
  Promise(Dump(*again) == Dump(*value), "and is the same");
}

void RunConfig(std::string_view input) {
  const json value = ParseJsonText(input);
  if (value.is_discarded()) return;
  RunnerConfig config;
  const std::vector<FieldProblem> problems = CheckRunnerConfig(value, &config);
  for (const FieldProblem& problem : problems) Promise(!problem.message.empty(), "a problem says what it is");
  Promise(ToStatus(problems).ok() == problems.empty(), "problems are an error");
  const json whole = ToJson(config);
  (void)ConfigId(value);
  (void)CheckBoundaries(value);
  (void)SemanticDifference(value, whole).Paths();
  (void)ResumeDifferences(value, config);
  if (!problems.empty()) return;
  RunnerConfig again;
  Promise(CheckRunnerConfig(whole, &again).empty(), "an accepted configuration is accepted again");
  Promise(ToJson(again) == whole, "and is the same");
  Promise(ResumeDifferences(whole, config).empty(), "a run is the run that it was");
}

void Override(std::string_view input) {
  std::vector<std::string> lines = absl::StrSplit(absl::string_view(input.data(), input.size()), '\n');
  lines.resize(3);
  json value = ParseJsonText(lines[2]);
  if (value.is_discarded()) value = json();
  const json before = value;
  const absl::Status status = ApplyOverride(value, lines[0], lines[1]);
  if (!Accepted(status, absl::StrCat("override ", lines[0]), {kInvalid})) {
    return Promise(value == before, "a refused override leaves nothing behind");
  }
  const json once = value;
  Promise(ApplyOverride(value, lines[0], lines[1]).ok() && Dump(value) == Dump(once), "it can be applied again");
  Promise(!JsonNestsTooDeep(Dump(value)) || JsonNestsTooDeep(Dump(before)), "it stays as flat as JSON from outside");
  RunnerConfig config;
  (void)CheckRunnerConfig(value, &config);
}

}  // namespace athanor::fuzz

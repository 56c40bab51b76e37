#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/delimited_text.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/tensor_dataset.h"

namespace athanor {
namespace {

using Cells = std::vector<DelimitedText::Cell>;

constexpr size_t kShownBytes = 40;

struct Rows {
  std::vector<float> features;
  std::vector<int64_t> whole_target;
  std::vector<float> target;
  size_t columns = 0;
  int64_t count = 0;
};

std::string_view Stripped(std::string_view text) {
  constexpr char kBlanks[] = " \t\v\f\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// A number as spreadsheets and statistics programs write it: blanks or quotes around it, a plus sign.
std::string_view NumberText(std::string_view cell) {
  cell = Stripped(cell);
  if (cell.size() >= 2 && cell.front() == '"' && cell.back() == '"') cell = Stripped(cell.substr(1, cell.size() - 2));
  if (cell.size() >= 2 && cell[0] == '+' && cell[1] != '-') cell.remove_prefix(1);
  return cell;
}

std::optional<double> Number(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (stop != end || text.empty()) return std::nullopt;
  // Too small for a double is zero, or nearly; too large is not finite.
  if (error == std::errc::result_out_of_range) value = std::strtod(std::string(text).c_str(), nullptr);
  return std::isfinite(static_cast<float>(value)) ? std::optional(value) : std::nullopt;
}

// Exact, also beyond what a double holds.
std::optional<int64_t> WholeNumber(std::string_view text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  if (const auto [stop, error] = std::from_chars(text.data(), end, value); stop == end)
    return error == std::errc() ? std::optional(value) : std::nullopt;
  constexpr double kExact = int64_t{1} << 53;
  const std::optional<double> number = Number(text);
  if (!number || std::trunc(*number) != *number || std::abs(*number) > kExact) return std::nullopt;
  return static_cast<int64_t>(*number);
}

absl::Status WrongCell(size_t column, std::string_view cell, const char* allowed, const char* hint = "") {
  const std::string_view shown = Stripped(cell).substr(0, kShownBytes);
  return absl::DataLossError(absl::StrCat("column ", column + 1, ": found \"",
                                          absl::string_view(shown.data(), shown.size()), "\"; allowed: ", allowed,
                                          hint));
}

// What the first line gives away of a file that was taken for another kind.
const char* HintOf(const Cells& cells, const Rows& rows) {
  if (rows.count > 0) return "";
  for (const DelimitedText::Cell& cell : cells) {
    if (Number(NumberText(cell.text)).has_value()) return "";
  }
  return " (a line of names? say so: header)";
}

absl::Status CheckColumns(const Cells& cells, const CsvOptions& options, Rows* rows) {
  if (rows->columns == 0) rows->columns = cells.size();
  if (cells.size() != rows->columns) {
    return absl::DataLossError(
        absl::StrCat("found ", cells.size(), " columns; allowed: ", rows->columns, " as before"));
  }
  if (cells.size() >= 2) return absl::OkStatus();
  std::string hint;
  for (const char other : {';', ',', '\t', '|'}) {
    if (other != options.delimiter && cells[0].text.find(other) != std::string_view::npos)
      hint = other == '\t' ? " (delimited by tabs?)" : absl::StrCat(" (delimited by '", std::string(1, other), "'?)");
  }
  return absl::DataLossError(absl::StrCat("found 1 column; allowed: at least 2", hint));
}

absl::Status AddRow(const Cells& cells, const CsvOptions& options, Rows* rows) {
  RETURN_IF_ERROR(CheckColumns(cells, options, rows));
  const auto columns = static_cast<int>(rows->columns);
  const int target = options.target_column < 0 ? columns + options.target_column : options.target_column;
  if (target < 0 || target >= columns) {
    return absl::InvalidArgumentError(absl::StrCat("csv target_column: found ", options.target_column,
                                                   "; allowed with ", columns, " columns: ", -columns, " to ",
                                                   columns - 1));
  }
  for (size_t column = 0; column < cells.size(); ++column) {
    const std::string_view text = NumberText(cells[column].text);
    const std::optional<double> value = Number(text);
    if (!value) return WrongCell(column, cells[column].text, "a number", HintOf(cells, *rows));
    if (column != static_cast<size_t>(target)) {
      rows->features.push_back(static_cast<float>(*value));
    } else if (!options.integer_target) {
      rows->target.push_back(static_cast<float>(*value));
    } else {
      const std::optional<int64_t> whole = WholeNumber(text);
      if (!whole) return WrongCell(column, cells[column].text, "a whole number");
      rows->whole_target.push_back(*whole);
    }
  }
  ++rows->count;
  return absl::OkStatus();
}

bool IsBlank(const Cells& cells) {
  return cells.size() == 1 && !cells[0].quoted && Stripped(cells[0].text).empty();
}

// INVALID_ARGUMENT is about an option, not about a place in the file.
absl::Status AtLine(const std::string& path, size_t line, const absl::Status& status) {
  return status.ok() || absl::IsInvalidArgument(status) ? status : Annotate(status, absl::StrCat(path, ":", line));
}

}  // namespace

absl::StatusOr<CsvTable> ReadCsv(const std::string& path, const CsvOptions& options) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, std::numeric_limits<size_t>::max()));
  absl::StatusOr<DelimitedText> text = DelimitedText::Open(bytes, options.delimiter);
  if (!text.ok()) return Annotate(text.status(), path);
  CsvTable table;
  Rows rows;
  Cells cells;
  bool header = options.header;
  while (true) {
    const absl::StatusOr<bool> more = text->Next(&cells);
    RETURN_IF_ERROR(AtLine(path, text->line(), more.status()));
    if (!*more) break;
    if (IsBlank(cells)) continue;
    if (!header) {
      RETURN_IF_ERROR(AtLine(path, text->line(), AddRow(cells, options, &rows)));
      continue;
    }
    for (const DelimitedText::Cell& cell : cells) table.columns.emplace_back(Stripped(cell.text));
    rows.columns = table.columns.size();
    header = false;
  }
  if (rows.count == 0) return absl::DataLossError(absl::StrCat(path, ": no rows"));
  table.features = torch::tensor(rows.features).view({rows.count, static_cast<int64_t>(rows.columns) - 1});
  table.target = options.integer_target ? torch::tensor(rows.whole_target, torch::kInt64)
                                        : torch::tensor(rows.target, torch::kFloat32);
  return table;
}

}  // namespace athanor

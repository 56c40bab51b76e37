#include <charconv>
#include <cmath>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "athanor/data/tensor_dataset.h"

namespace athanor {
namespace {

struct Rows {
  std::vector<float> features;
  std::vector<double> target;
  size_t columns = 0;
};

absl::Status Damaged(const std::string& path, size_t line, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, ":", line, ": ", what));
}

absl::Status AddRow(const std::string& path, size_t line, absl::string_view text, const CsvOptions& options,
                    Rows* rows) {
  const std::vector<absl::string_view> cells = absl::StrSplit(text, options.delimiter);
  if (rows->columns == 0) rows->columns = cells.size();
  if (cells.size() != rows->columns) {
    return Damaged(path, line,
                   absl::StrCat("found ", cells.size(), " columns; allowed: ", rows->columns, " as before"));
  }
  if (cells.size() < 2) return Damaged(path, line, "found 1 column; allowed: at least 2");
  const auto columns = static_cast<int>(rows->columns);
  const int target = options.target_column < 0 ? columns + options.target_column : options.target_column;
  if (target < 0 || target >= columns) {
    return absl::InvalidArgumentError(absl::StrCat("csv target_column: found ", options.target_column,
                                                   "; allowed with ", columns, " columns: ", -columns, " to ",
                                                   columns - 1));
  }
  for (int column = 0; column < columns; ++column) {
    const absl::string_view cell = absl::StripAsciiWhitespace(cells[static_cast<size_t>(column)]);
    double value = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(static_cast<float>(value))) {
      return Damaged(path, line,
                     absl::StrCat("column ", column + 1, ": found \"", cell.substr(0, 40), "\"; allowed: a number"));
    }
    if (column != target) {
      rows->features.push_back(static_cast<float>(value));
      continue;
    }
    if (options.integer_target && (std::trunc(value) != value || std::abs(value) > 9e15)) {
      return Damaged(
          path, line,
          absl::StrCat("column ", column + 1, ": found \"", cell.substr(0, 40), "\"; allowed: a whole number"));
    }
    rows->target.push_back(value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CsvTable> ReadCsv(const std::string& path, const CsvOptions& options) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  CsvTable table;
  Rows rows;
  std::string line;
  bool header = options.header;
  for (size_t number = 1; std::getline(file, line); ++number) {
    const absl::string_view text = absl::StripTrailingAsciiWhitespace(line);
    if (text.empty()) continue;
    if (header) {
      for (absl::string_view name : absl::StrSplit(text, options.delimiter))
        table.columns.emplace_back(absl::StripAsciiWhitespace(name));
      rows.columns = table.columns.size();
      header = false;
      continue;
    }
    if (absl::Status status = AddRow(path, number, text, options, &rows); !status.ok()) return status;
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path, ": reading failed"));
  if (rows.target.empty()) return absl::DataLossError(absl::StrCat(path, ": no rows"));
  const auto count = static_cast<int64_t>(rows.target.size());
  table.features = torch::tensor(rows.features).view({count, static_cast<int64_t>(rows.columns) - 1});
  table.target =
      torch::tensor(rows.target, torch::kFloat64).to(options.integer_target ? torch::kInt64 : torch::kFloat32);
  return table;
}

}  // namespace athanor

// A table of typed columns: what a data frame is here. Read from CSV, TSV and JSON lines.
//
//   ASSIGN_OR_RETURN(Table table, LoadTable("results.csv"));
//   ASSIGN_OR_RETURN(torch::Tensor x, table.Numbers("x"));           // rows, float64; NaN where a cell is empty
//
// A column is of the narrowest type that all of its cells have: whole numbers (64 bits), numbers, true / false, else
// text as it is written; so is a column that mixes fractions with whole numbers beyond 2^53, which would be rounded.
// Empty cells (and null, NULL, None, nan, NaN, NA, N/A, n/a, #N/A, #NA, <NA>) are missing. CSV as RFC 4180: quotes,
// doubled quotes, line breaks within quotes, lines that end with LF, CRLF or CR; UTF-8 with or without a byte order
// mark; the first line names the columns. Parquet is not read: Apache Arrow is no part of this build.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

enum class ColumnType { kWhole, kNumber, kBool, kText };

struct Column {
  std::string name;
  ColumnType type = ColumnType::kText;
  std::vector<bool> present;       // one per row, as all that follow
  std::vector<double> numbers;     // kWhole, kNumber, kBool; NaN where missing
  std::vector<int64_t> wholes;     // kWhole; 0 where missing
  std::vector<std::string> texts;  // kText; "" where missing
};

class Table {
 public:
  // INVALID_ARGUMENT when a row has another number of cells than there are names, or a name comes twice. Cells: null,
  // bool, number or string.
  static absl::StatusOr<Table> Make(std::vector<std::string> names,
                                    const std::vector<std::vector<nlohmann::json>>& rows);

  int64_t rows() const { return rows_; }
  const std::vector<Column>& columns() const { return columns_; }
  // NOT_FOUND names the columns that there are.
  absl::StatusOr<const Column*> Find(const std::string& name) const;
  // float64, which rounds whole numbers beyond 2^53; INVALID_ARGUMENT for text.
  absl::StatusOr<torch::Tensor> Numbers(const std::string& name) const;
  absl::StatusOr<torch::Tensor> Wholes(const std::string& name) const;  // int64; INVALID_ARGUMENT with missing cells
  nlohmann::json Cell(int64_t row, size_t column) const;

 private:
  std::vector<Column> columns_;
  int64_t rows_ = 0;
};

// `text` is the whole file; `name` is for messages. DATA_LOSS names the line, or what makes it no table: a name that
// comes twice; of JSON lines, so many keys that nearly all rows lack that the table would be far larger than the file.
absl::StatusOr<Table> ParseCsv(const std::string& name, const std::string& text, char delimiter = ',');
absl::StatusOr<Table> ParseJsonLinesTable(const std::string& name, const std::string& text);
std::string FormatCsv(const Table& table, char delimiter = ',');

}  // namespace athanor

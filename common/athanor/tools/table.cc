#include "athanor/tools/table.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "athanor/base/delimited_text.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

using nlohmann::json;
using Row = std::vector<json>;

struct TextCell {
  std::string text;
  bool quoted = false;
};

// Cells that hold nothing, as pandas, R and Excel write them.
bool IsMissing(const std::string& text) {
  static const std::set<std::string> missing = {"",    "nan",  "NaN", "NA",   "<NA>", "N/A",
                                                "n/a", "#N/A", "#NA", "null", "NULL", "None"};
  return missing.count(text) > 0;
}

// Blanks around a number do not count, nor its plus sign.
absl::string_view NumberText(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (text.size() >= 2 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  return text;
}

// What a cell of text stands for.
json CellOf(const TextCell& cell) {
  const std::string& text = cell.text;
  if (cell.quoted) return text;
  if (IsMissing(text)) return nullptr;
  if (text == "true" || text == "True") return true;
  if (text == "false" || text == "False") return false;
  const absl::string_view number_text = NumberText(text);
  const char *begin = number_text.data(), *end = begin + number_text.size();
  int64_t whole = 0;
  if (const auto [stop, error] = std::from_chars(begin, end, whole); stop == end && stop != begin)
    return error == std::errc() ? json(whole) : json(text);  // too large for any number: the digits stay
  double number = 0;
  if (const auto [stop, error] = std::from_chars(begin, end, number); error == std::errc() && stop == end) {
    constexpr size_t kSignedNan = 4;  // "-nan", as printf writes it; "nan(...)" is a text
    if (!std::isnan(number)) return number;
    if (text.size() <= kSignedNan) return nullptr;
  }
  return text;
}

// Whether a column of numbers with a fraction can hold it as it is.
bool FitsNumber(const json& cell) {
  constexpr int64_t kExact = int64_t{1} << 53;
  if (!cell.is_number_integer()) return cell.is_number();
  if (cell.is_number_unsigned()) return cell.get<uint64_t>() <= static_cast<uint64_t>(kExact);
  const auto whole = cell.get<int64_t>();
  return whole >= -kExact && whole <= kExact;
}

std::string TextOf(const json& cell) {
  return cell.is_string() ? cell.get<std::string>() : cell.dump();
}

ColumnType TypeOf(const std::vector<Row>& rows, size_t column) {
  bool whole = true, number = true, boolean = true, any = false;
  for (const Row& row : rows) {
    const json& cell = row[column];
    if (cell.is_null()) continue;
    any = true;
    whole = whole && cell.is_number_integer() &&
            !(cell.is_number_unsigned() && cell.get<uint64_t>() > std::numeric_limits<int64_t>::max());
    number = number && FitsNumber(cell);
    boolean = boolean && cell.is_boolean();
  }
  if (!any) return ColumnType::kNumber;  // nothing but missing: NaN throughout
  return whole ? ColumnType::kWhole : number ? ColumnType::kNumber : boolean ? ColumnType::kBool : ColumnType::kText;
}

// Cells of a column that holds text stay as they are written: "007" among names is no 7.
std::vector<Row> RowsOf(const std::vector<std::vector<TextCell>>& records, size_t columns) {
  std::vector<Row> rows(records.size(), Row(columns));
  for (size_t r = 0; r < records.size(); ++r) {
    for (size_t c = 0; c < columns; ++c) rows[r][c] = CellOf(records[r][c]);
  }
  for (size_t c = 0; c < columns; ++c) {
    if (TypeOf(rows, c) != ColumnType::kText) continue;
    for (size_t r = 0; r < records.size(); ++r) {
      if (!rows[r][c].is_null()) rows[r][c] = records[r][c].text;
    }
  }
  return rows;
}

// What is wrong with a table is wrong with the file that it comes from.
absl::StatusOr<Table> Named(const std::string& name, absl::StatusOr<Table> table) {
  if (table.ok()) return table;
  return absl::DataLossError(absl::StrCat(name, ": ", table.status().message()));
}

std::string NumberText(double value) {
  return std::isinf(value) ? (value > 0 ? "inf" : "-inf") : json(value).dump();
}

std::string Quoted(const std::string& text, char delimiter) {
  const bool number_like = !CellOf({text}).is_string();
  const std::string begin = text.substr(0, 2);  // of the file, it would say how that is encoded
  const bool mark = begin == "\xef\xbb" || begin == "\xff\xfe" || begin == "\xfe\xff";
  if (!number_like && !mark && text.find_first_of(std::string("\"\n\r") + delimiter) == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

}  // namespace

absl::StatusOr<Table> Table::Make(std::vector<std::string> names, const std::vector<Row>& rows) {
  Table table;
  table.rows_ = static_cast<int64_t>(rows.size());
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size())
    return absl::InvalidArgumentError(absl::StrCat("table: a column name comes twice: ", absl::StrJoin(names, ", ")));
  for (const Row& row : rows) {
    if (row.size() != names.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("table: found a row of ", row.size(), " cells; allowed: ", names.size()));
    }
  }
  for (size_t c = 0; c < names.size(); ++c) {
    Column column;
    column.name = names[c];
    column.type = TypeOf(rows, c);
    for (const Row& row : rows) {
      const json& cell = row[c];
      const bool present = !cell.is_null();
      column.present.push_back(present);
      if (column.type == ColumnType::kText) {
        column.texts.push_back(present ? TextOf(cell) : "");
        continue;
      }
      if (column.type == ColumnType::kWhole) column.wholes.push_back(present ? cell.get<int64_t>() : 0);
      column.numbers.push_back(!present            ? std::nan("")
                               : cell.is_boolean() ? static_cast<double>(cell.get<bool>())
                                                   : cell.get<double>());
    }
    table.columns_.push_back(std::move(column));
  }
  return table;
}

absl::StatusOr<const Column*> Table::Find(const std::string& name) const {
  std::vector<std::string> names;
  for (const Column& column : columns_) {
    if (column.name == name) return &column;
    names.push_back(column.name);
  }
  return absl::NotFoundError(absl::StrCat("no column \"", name, "\"; there are: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<torch::Tensor> Table::Numbers(const std::string& name) const {
  const absl::StatusOr<const Column*> column = Find(name);
  if (!column.ok()) return column.status();
  if ((*column)->type == ColumnType::kText)
    return absl::InvalidArgumentError(absl::StrCat("column \"", name, "\" holds text"));
  return torch::tensor((*column)->numbers, torch::kFloat64);
}

absl::StatusOr<torch::Tensor> Table::Wholes(const std::string& name) const {
  const absl::StatusOr<const Column*> column = Find(name);
  if (!column.ok()) return column.status();
  for (const bool present : (*column)->present) {
    if (!present) return absl::InvalidArgumentError(absl::StrCat("column \"", name, "\" has missing cells"));
  }
  if ((*column)->type != ColumnType::kWhole)
    return absl::InvalidArgumentError(absl::StrCat("column \"", name, "\" holds other things than whole numbers"));
  return torch::tensor((*column)->wholes, torch::kInt64);
}

json Table::Cell(int64_t row, size_t column) const {
  const Column& of = columns_[column];
  const auto at = static_cast<size_t>(row);
  if (!of.present[at]) return nullptr;
  if (of.type == ColumnType::kText) return of.texts[at];
  if (of.type == ColumnType::kWhole) return of.wholes[at];
  if (of.type == ColumnType::kBool) return of.numbers[at] != 0;
  return of.numbers[at];
}

absl::StatusOr<Table> ParseCsv(const std::string& name, const std::string& text, char delimiter) {
  std::vector<std::string> names;
  std::vector<std::vector<TextCell>> records;
  absl::StatusOr<DelimitedText> reader = DelimitedText::Open(text, delimiter);
  if (!reader.ok()) return Annotate(reader.status(), name);
  std::vector<DelimitedText::Cell> cells;
  while (true) {
    const absl::StatusOr<bool> more = reader->Next(&cells);
    if (!more.ok()) return Annotate(more.status(), absl::StrCat(name, ":", reader->line()));
    if (!*more) break;
    if (cells.size() == 1 && cells[0].text.empty() && !cells[0].quoted) continue;  // an empty line
    if (names.empty()) {
      for (const DelimitedText::Cell& cell : cells) names.emplace_back(cell.text);
      continue;
    }
    if (cells.size() != names.size()) {
      return absl::DataLossError(absl::StrCat(name, ":", reader->line(), ": found ", cells.size(),
                                              " cells; allowed: ", names.size(), " as in the first line"));
    }
    std::vector<TextCell>& row = records.emplace_back();
    for (const DelimitedText::Cell& cell : cells) row.push_back({std::string(cell.text), cell.quoted});
  }
  if (names.empty()) return absl::DataLossError(absl::StrCat(name, ": no line with column names"));
  const std::vector<Row> rows = RowsOf(records, names.size());
  return Named(name, Table::Make(std::move(names), rows));
}

absl::StatusOr<Table> ParseJsonLinesTable(const std::string& name, const std::string& text) {
  std::vector<std::string> names;
  std::map<std::string, size_t> places;
  std::vector<Row> rows;
  size_t number = 0;
  constexpr size_t kFree = size_t{1} << 24, kPerByte = 16;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    const json object = ParseJsonText({line.data(), line.size()});
    if (object.is_discarded())
      return absl::DataLossError(absl::StrCat(name, ":", number, ": ", JsonProblem({line.data(), line.size()})));
    if (!object.is_object()) return absl::DataLossError(absl::StrCat(name, ":", number, ": no JSON object"));
    Row row(names.size());
    for (const auto& [key, value] : object.items()) {
      if (const auto [place, fresh] = places.emplace(key, names.size()); fresh) {
        names.push_back(key);
        row.emplace_back();
      }
      row[places[key]] = value;
    }
    rows.push_back(std::move(row));
    // Every row has a cell for every key, whichever line it is from.
    if (names.size() > (kFree + kPerByte * text.size()) / rows.size()) {
      return absl::DataLossError(absl::StrCat(name, ":", number, ": ", names.size(),
                                              " columns by now, of which each of ", rows.size(), " rows has few"));
    }
  }
  for (Row& row : rows) row.resize(names.size());  // keys that came later are missing in earlier rows
  return Named(name, Table::Make(std::move(names), rows));
}

std::string FormatCsv(const Table& table, char delimiter) {
  const std::string separator(1, delimiter);
  std::vector<std::string> cells;
  for (const Column& column : table.columns()) cells.push_back(Quoted(column.name, delimiter));
  std::string text = absl::StrJoin(cells, separator) + "\n";
  for (int64_t row = 0; row < table.rows(); ++row) {
    cells.clear();
    for (size_t c = 0; c < table.columns().size(); ++c) {
      const json cell = table.Cell(row, c);
      // A line of nothing would be no row.
      const char* missing = table.columns().size() == 1 ? "NA" : "";
      cells.push_back(cell.is_null()           ? missing
                      : cell.is_string()       ? Quoted(cell.get<std::string>(), delimiter)
                      : cell.is_number_float() ? NumberText(cell.get<double>())
                                               : cell.dump());
    }
    absl::StrAppend(&text, absl::StrJoin(cells, separator), "\n");
  }
  return text;
}

}  // namespace athanor

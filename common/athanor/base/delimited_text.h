// Records and cells of delimited text: CSV, TSV, and what spreadsheets and statistics programs save.
//
//   ASSIGN_OR_RETURN(DelimitedText text, DelimitedText::Open(bytes, ','));
//   std::vector<DelimitedText::Cell> cells;
//   for (absl::StatusOr<bool> more = text.Next(&cells); ; more = text.Next(&cells)) {
//     if (!more.ok()) return Annotate(more.status(), absl::StrCat(path, ":", text.line()));
//     if (!*more) break;
//     ...
//   }
//
// RFC 4180: a cell may stand in quotes, which are doubled within it, and then holds delimiters and line breaks. Lines
// end with LF, CRLF or CR. A byte order mark of UTF-8 is passed over; UTF-16 is refused. Not thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

class DelimitedText {
 public:
  struct Cell {
    std::string_view text;
    bool quoted = false;
  };

  // `bytes` outlives the object. DATA_LOSS: it begins with the mark of UTF-16.
  static absl::StatusOr<DelimitedText> Open(std::string_view bytes, char delimiter);

  // The next record's cells, which are good until the next call: an empty line is one empty cell. False: there is none.
  // DATA_LOSS: a quote that is not closed.
  absl::StatusOr<bool> Next(std::vector<Cell>* cells);

  size_t line() const { return line_; }  // where the record of the last Next() begins, from 1

 private:
  DelimitedText(std::string_view bytes, char delimiter) : bytes_(bytes), delimiter_(delimiter) {}
  // The place of `c` from the present one on, looked for once.
  size_t Find(char c, size_t* known);
  bool ReadQuoted(std::vector<Cell>* cells);
  bool TakeQuotes(std::string* cell);

  std::string_view bytes_;
  char delimiter_;
  size_t at_ = 0, line_ = 0, next_line_ = 1;
  size_t feed_ = 0, return_ = 0, quote_ = 0;  // known places
  std::deque<std::string> unquoted_;
};

}  // namespace athanor

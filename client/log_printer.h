// Output of ranks, as it is shown: each line with its generation and rank in front where several are merged, one JSON
// object a line ({"generation": 1, "rank": 0, "line": "…"}), or an entry of a YAML list.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "athanor/v1/job_service.pb.h"
#include "client/output.h"

namespace athanor {

struct LogPrinterOptions {
  bool merged = false;    // several ranks or generations: lines are kept until they are whole
  bool terminal = false;  // control characters are made harmless
  OutputFormat format = OutputFormat::kTable;
};

// Writes to std::cout and flushes once a chunk; notices go to stderr. A carriage return ends a line too and stays what
// it is: bars of progress show while they move. A line without an end is broken after 1 MiB.
class LogPrinter {
 public:
  explicit LogPrinter(const LogPrinterOptions& options) : options_(options) {}
  void Print(const v1::LogChunk& chunk);
  void Close();  // what has no line end yet

 private:
  void Line(int32_t generation, int32_t rank, std::string_view text, char end);
  const LogPrinterOptions options_;
  struct Open {
    std::string text;  // of a line that is not whole yet
    bool after_return = false;
  };
  std::map<std::pair<int32_t, int32_t>, Open> open_;
  bool overwritable_ = false;  // the terminal's line ended in a carriage return
};

}  // namespace athanor

#include "client/log_printer.h"

#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace athanor {
namespace {

constexpr size_t kLongestLine = 1 << 20;
constexpr char kEraseToEnd[] = "\033[K";

std::string StripControlCharsOfLines(const std::string& text) {
  const std::vector<std::string> pieces = absl::StrSplit(text, '\r');
  return absl::StrJoin(pieces, "\r",
                       [](std::string* out, const std::string& piece) { *out += StripControlChars(piece); });
}

}  // namespace

void LogPrinter::Print(const v1::LogChunk& chunk) {
  if (!chunk.notice().empty()) {
    std::cerr << "athanor: " << StripControlChars(chunk.notice()) << "\n";
    return;
  }
  if (!options_.merged && options_.format == OutputFormat::kTable) {
    std::cout << (options_.terminal ? StripControlCharsOfLines(chunk.data()) : chunk.data()) << std::flush;
    return;
  }
  Open& open = open_[{chunk.generation(), chunk.rank()}];
  std::string_view data = chunk.data();
  if (open.after_return && !data.empty() && data.front() == '\n') {  // "\r\n" in two chunks
    if (options_.format == OutputFormat::kTable) std::cout << "\n";
    data.remove_prefix(1);
  }
  if (!data.empty()) open.after_return = data.back() == '\r';
  size_t search = open.text.size(), begin = 0;
  open.text += data;
  const std::string_view all = open.text;
  for (size_t end = 0; (end = all.find_first_of("\r\n", search)) != std::string_view::npos; search = begin) {
    const bool pair = all.substr(end, 2) == "\r\n";
    Line(chunk.generation(), chunk.rank(), all.substr(begin, end - begin), pair ? '\n' : all[end]);
    begin = end + (pair ? 2 : 1);
  }
  if (all.size() - begin > kLongestLine) {
    Line(chunk.generation(), chunk.rank(), all.substr(begin), '\n');
    begin = all.size();
  }
  open.text.erase(0, begin);
  std::cout << std::flush;
}

void LogPrinter::Close() {
  for (const auto& [key, open] : open_) {
    if (!open.text.empty()) Line(key.first, key.second, open.text, '\n');
  }
  std::cout << std::flush;
}

void LogPrinter::Line(int32_t generation, int32_t rank, std::string_view text, char end) {
  if (options_.format != OutputFormat::kTable) {
    if (text.empty() && end == '\r') return;
    const nlohmann::ordered_json line = {{"generation", generation}, {"rank", rank}, {"line", std::string(text)}};
    std::cout << (options_.format == OutputFormat::kYaml ? "- " : "")
              << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
    return;
  }
  std::cout << "[g" << generation << " r" << rank << "] ";
  if (options_.terminal) {
    std::cout << StripControlChars(text) << (overwritable_ || end == '\r' ? kEraseToEnd : "");
  } else {
    std::cout << text;
  }
  std::cout << end;
  overwritable_ = end == '\r';
}

}  // namespace athanor

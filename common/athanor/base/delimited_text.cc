#include "athanor/base/delimited_text.h"

#include <algorithm>

namespace athanor {

absl::StatusOr<DelimitedText> DelimitedText::Open(std::string_view bytes, char delimiter) {
  if (bytes.substr(0, 2) == "\xff\xfe" || bytes.substr(0, 2) == "\xfe\xff")
    return absl::DataLossError("found UTF-16; allowed: UTF-8 (in Excel: \"CSV UTF-8\")");
  if (bytes.substr(0, 3) == "\xef\xbb\xbf") bytes.remove_prefix(3);
  return DelimitedText(bytes, delimiter);
}

size_t DelimitedText::Find(char c, size_t* known) {
  if (*known < at_ || (*known == 0 && at_ == 0)) *known = std::min(bytes_.find(c, at_), bytes_.size());
  return *known;
}

absl::StatusOr<bool> DelimitedText::Next(std::vector<Cell>* cells) {
  cells->clear();
  unquoted_.clear();
  line_ = next_line_;
  if (at_ >= bytes_.size()) return false;
  const size_t end = std::min(Find('\n', &feed_), Find('\r', &return_));
  if (Find('"', &quote_) < end) {
    if (!ReadQuoted(cells)) return absl::DataLossError("a quote is not closed");
    return true;
  }
  const std::string_view record = bytes_.substr(at_, end - at_);
  for (size_t from = 0;;) {
    const size_t to = std::min(record.find(delimiter_, from), record.size());
    cells->push_back({record.substr(from, to - from)});
    if (to == record.size()) break;
    from = to + 1;
  }
  at_ = end + (bytes_.substr(end, 2) == "\r\n" ? 2 : 1);
  ++next_line_;
  return true;
}

// What stands in quotes, from the first one on to behind the last one.
bool DelimitedText::TakeQuotes(std::string* cell) {
  for (++at_; at_ < bytes_.size(); ++at_) {
    if (bytes_[at_] == '\n') ++next_line_;
    if (bytes_[at_] == '"') {
      if (bytes_.substr(at_ + 1, 1) != "\"") {
        ++at_;
        return true;
      }
      ++at_;
    }
    *cell += bytes_[at_];
  }
  return false;
}

bool DelimitedText::ReadQuoted(std::vector<Cell>* cells) {
  while (true) {
    std::string& cell = unquoted_.emplace_back();
    bool quoted = false;
    char c = '\n';
    for (; at_ < bytes_.size(); ++at_) {
      c = bytes_[at_];
      if (c == '"' && !quoted && cell.empty()) {
        quoted = true;
        if (!TakeQuotes(&cell)) return false;
        c = at_ < bytes_.size() ? bytes_[at_] : '\n';
      }
      if (c == delimiter_ || c == '\n' || c == '\r') break;
      cell += c;
    }
    if (at_ >= bytes_.size()) c = '\n';
    cells->push_back({cell, quoted});
    at_ += c == '\r' && bytes_.substr(at_, 2) == "\r\n" ? 2 : 1;
    if (c == delimiter_) continue;
    ++next_line_;
    return true;
  }
}

}  // namespace athanor

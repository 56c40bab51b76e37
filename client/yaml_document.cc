#include "client/yaml_document.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "athanor/base/json_text.h"
#include "athanor/base/utf8_text.h"

namespace athanor {
namespace {

constexpr int kMaxDepth = 32;
constexpr int kMaxNodes = 100000;
constexpr size_t kMaxBytes = 1 << 20;
constexpr char kStringTag[] = "tag:yaml.org,2002:str";

Place PlaceOf(const YAML::Mark& mark) {
  return {mark.line + 1, mark.column + 1};
}

// "?" is a plain scalar or a collection, "!" a quoted one.
bool KnownTag(const std::string& tag) {
  constexpr std::array kPlain = {"", "?", "!"};
  constexpr std::array kNamed = {"str", "int", "float", "bool", "null", "map", "seq"};
  if (std::find(kPlain.begin(), kPlain.end(), tag) != kPlain.end()) return true;
  return std::any_of(kNamed.begin(), kNamed.end(),
                     [&](const char* name) { return tag == absl::StrCat("tag:yaml.org,2002:", name); });
}

class Converter {
 public:
  explicit Converter(YamlDocument& document) : document_(document) {}

  nlohmann::json Convert(const YAML::Node& node, const std::string& path, int depth) {
    if (TooLarge(node, path, depth)) return nullptr;
    document_.places.emplace(path, PlaceOf(node.Mark()));
    if (!KnownTag(node.Tag())) Problem(node.Mark(), path, absl::StrCat("the tag ", node.Tag(), " has no meaning here"));
    if (node.IsMap()) {
      nlohmann::json object = nlohmann::json::object();
      AddEntries(node, path, depth, object);
      return object;
    }
    if (node.IsSequence()) {
      nlohmann::json list = nlohmann::json::array();
      for (size_t i = 0; i < node.size() && !overflow_; ++i)
        list.push_back(Convert(node[i], Child(path, absl::StrCat(i)), depth + 1));
      return list;
    }
    return node.IsScalar() ? ConvertScalar(node, path) : nlohmann::json(nullptr);
  }

 private:
  static std::string Child(const std::string& path, const std::string& name) {
    return path.empty() ? name : absl::StrCat(path, ".", name);
  }

  void Problem(const YAML::Mark& mark, const std::string& path, const std::string& text, bool as_number = false) {
    document_.problems.push_back({PlaceOf(mark), path, text, as_number});
  }

  bool TooLarge(const YAML::Node& node, const std::string& path, int depth) {
    if (++nodes_ <= kMaxNodes && depth <= kMaxDepth) return overflow_;
    if (!overflow_)
      Problem(node.Mark(), path,
              absl::StrCat("too large: at most ", kMaxNodes, " values, nested ", kMaxDepth,
                           " deep (aliases count in full)"));
    overflow_ = true;
    return true;
  }

  // Entries that `object` has already win: those of the map that a merge key stands in.
  void AddEntries(const YAML::Node& node, const std::string& path, int depth, nlohmann::json& object) {
    std::set<std::string> own;
    std::vector<YAML::Node> merged;
    for (const auto& entry : node) {
      if (overflow_) return;
      if (!entry.first.IsScalar()) {
        Problem(entry.first.Mark(), path, "a key must be a plain name");
        continue;
      }
      const std::string key = entry.first.Scalar();
      if (key == "<<" && entry.first.Tag() != "!") {
        merged.push_back(entry.second);
        continue;
      }
      const std::string child = Child(path, key);
      if (!own.insert(key).second) {
        Problem(entry.first.Mark(), child, "the key stands twice");
      } else if (!object.contains(key)) {
        document_.places[child] = PlaceOf(entry.first.Mark());
        object[key] = Convert(entry.second, child, depth + 1);
      }
    }
    for (const YAML::Node& source : merged) Merge(source, path, depth + 1, object);
  }

  void Merge(const YAML::Node& source, const std::string& path, int depth, nlohmann::json& object) {
    if (TooLarge(source, path, depth)) return;
    if (source.IsMap()) return AddEntries(source, path, depth, object);
    const bool maps = source.IsSequence() &&
                      std::all_of(source.begin(), source.end(), [](const YAML::Node& one) { return one.IsMap(); });
    if (!maps) return Problem(source.Mark(), Child(path, "<<"), "allowed: a map (*name), or a list of maps");
    for (const YAML::Node& one : source) Merge(one, path, depth + 1, object);
  }

  // YAML 1.2: only true and false are booleans, "no" and "on" are text; quoted scalars are text.
  nlohmann::json ConvertScalar(const YAML::Node& node, const std::string& path) {
    const std::string& text = node.Scalar();
    document_.texts[path] = text;
    if (node.Tag() == "!" || node.Tag() == kStringTag) return text;
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (text.empty() || text == "null" || text == "~" || text == "Null" || text == "NULL") {
      document_.texts.erase(path);
      return nullptr;
    }
    int64_t integer = 0;
    uint64_t large = 0;
    const bool digits = text.find_first_not_of("+-0123456789") == std::string::npos;
    if (digits && absl::SimpleAtoi(text, &integer)) return integer;
    if (digits && absl::SimpleAtoi(text, &large)) return large;
    const bool number_like = text.find_first_not_of("+-.0123456789eE") == std::string::npos &&
                             text.find_first_of("0123456789") != std::string::npos;
    double real = 0;
    if (number_like && absl::SimpleAtod(text, &real)) {
      if (std::isfinite(real)) return real;
      Problem(node.Mark(), path, absl::StrCat(text, " is too large for a number"), /*as_number=*/true);
      return nullptr;
    }
    if (text == ".nan" || text == ".NaN" || text == ".NAN" || absl::EndsWith(text, ".inf") ||
        absl::EndsWith(text, ".Inf") || absl::EndsWith(text, ".INF")) {
      Problem(node.Mark(), path, absl::StrCat(text, " is not allowed; give a finite number"), /*as_number=*/true);
      return nullptr;
    }
    return text;
  }

  YamlDocument& document_;
  int nodes_ = 0;
  bool overflow_ = false;
};

// "12:7: byte 0xff is not UTF-8", or empty. UTF-16 and UTF-32 say so by their first bytes; the parser reads them.
std::string NotUtf8(const std::string& text) {
  if (absl::StartsWith(text, "\xff\xfe") || absl::StartsWith(text, "\xfe\xff")) return "";
  const size_t bad = FirstByteNotUtf8(text);
  if (bad == std::string::npos) return "";
  const size_t line_start = bad == 0 ? std::string::npos : text.rfind('\n', bad - 1);
  return absl::StrFormat("%d:%d: byte 0x%02x is not UTF-8",
                         std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n') + 1,
                         bad - (line_start + 1) + 1, static_cast<unsigned char>(text[bad]));
}

// A tab in the indentation of the line where the parser gave up, or of the one before: the parser does not say so.
std::string TabHint(const std::string& text, int error_line) {
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  for (const int index : {error_line, error_line - 1}) {
    if (index < 0 || static_cast<size_t>(index) >= lines.size()) continue;
    const absl::string_view line = lines[static_cast<size_t>(index)];
    const size_t tab = line.substr(0, line.find_first_not_of(" \t-?:")).find('\t');
    if (tab != absl::string_view::npos)
      return absl::StrCat("; line ", index + 1, " is indented with a tab (column ", tab + 1,
                          "), YAML allows blanks only");
  }
  return "";
}

bool IsCharacterProblem(const YAML::Exception& error) {
  const std::array kProblems = {YAML::ErrorMsg::INVALID_UNICODE, YAML::ErrorMsg::INVALID_ESCAPE,
                                YAML::ErrorMsg::INVALID_HEX};
  return std::any_of(kProblems.begin(), kProblems.end(),
                     [&](const char* one) { return absl::StartsWith(error.msg, one); });
}

// The code unit of an escape "\uD83D" at `at`, -1 where there is none.
int CodeUnit(const std::string& text, size_t at) {
  uint32_t unit = 0;
  if (text.compare(at, 2, "\\u") != 0 || text.size() < at + 6) return -1;
  return absl::SimpleHexAtoi(text.substr(at + 2, 4), &unit) ? static_cast<int>(unit) : -1;
}

// JSON writes a character beyond U+FFFF as two escapes, which YAML does not know: "\uD83D\uDE00" becomes "\U0001F600".
std::string JoinSurrogates(const std::string& text) {
  std::string joined;
  for (size_t at = 0; at < text.size();) {
    const int high = CodeUnit(text, at);
    const int low = high >= 0xd800 && high < 0xdc00 ? CodeUnit(text, at + 6) : -1;
    if (low >= 0xdc00 && low < 0xe000) {
      absl::StrAppendFormat(&joined, "\\U%08x", 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
      at += 12;
    } else {
      const size_t length = text[at] == '\\' ? 2 : 1;  // what an escape begins is not the beginning of the next
      joined.append(text, at, length);
      at += length;
    }
  }
  return joined;
}

}  // namespace

absl::StatusOr<YamlDocument> ParseYaml(const std::string& text) {
  if (text.size() > kMaxBytes)
    return absl::InvalidArgumentError(absl::StrCat("1:1: ", text.size(), " bytes; a job file has at most ", kMaxBytes));
  if (const std::string wrong = NotUtf8(text); !wrong.empty()) return absl::InvalidArgumentError(wrong);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.empty() || documents[0].IsNull()) return absl::InvalidArgumentError("1:1: the file is empty");
    if (documents.size() > 1)
      return absl::InvalidArgumentError(
          absl::StrCat(documents[1].Mark().line + 1, ":1: a second document begins here; one job per file"));
    if (!documents[0].IsMap())
      return absl::InvalidArgumentError("1:1: expected a map of fields (name:, task:, runner:, …)");
    YamlDocument document;
    document.value = Converter(document).Convert(documents[0], "", 0);
    return document;
  } catch (const YAML::Exception& error) {
    if (std::string joined = JoinSurrogates(text); IsCharacterProblem(error) && joined != text)
      return ParseYaml(joined);
    const std::string hint = IsCharacterProblem(error) ? "" : TabHint(text, error.mark.line);
    return absl::InvalidArgumentError(
        absl::StrCat(error.mark.line + 1, ":", error.mark.column + 1, ": not YAML: ", error.msg, hint));
  }
}

std::string AsWritten(const YamlDocument& document, const std::string& path, const std::string& message) {
  constexpr absl::string_view kFound = "found ";
  constexpr size_t kShown = 64;
  const auto written = document.texts.find(path);
  const size_t end = message.find(" (");
  if (written == document.texts.end() || !absl::StartsWith(message, kFound) || end == std::string::npos) return message;
  const absl::string_view rest = absl::string_view(message).substr(end);
  const std::array kKinds = {" (integer)", " (number)", " (boolean)"};
  if (std::none_of(kKinds.begin(), kKinds.end(), [&](const char* kind) { return absl::StartsWith(rest, kind); }))
    return message;
  const std::string text =
      written->second.size() > kShown ? absl::StrCat(CutUtf8(written->second, kShown - 3), "...") : written->second;
  return absl::StrCat(kFound, text, rest);
}

nlohmann::json ParseFlow(const std::string& text) {
  if (text.empty() || (text[0] != '{' && text[0] != '[') || !ParseJsonText(text).is_discarded()) return nullptr;
  const absl::StatusOr<YamlDocument> document = ParseYaml("value: " + text);
  return document.ok() && document->problems.empty() ? document->value["value"] : nlohmann::json(nullptr);
}

}  // namespace athanor

#include "client/yaml_document.h"

#include <yaml-cpp/yaml.h>

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr int kMaxDepth = 32;
constexpr int kMaxNodes = 100000;
constexpr size_t kMaxBytes = 1 << 20;

Place PlaceOf(const YAML::Mark& mark) {
  return {mark.line + 1, mark.column + 1};
}

class Converter {
 public:
  explicit Converter(YamlDocument& document) : document_(document) {}

  nlohmann::json Convert(const YAML::Node& node, const std::string& path, int depth) {
    if (++nodes_ > kMaxNodes || depth > kMaxDepth) {
      if (!overflow_)
        Problem(node.Mark(), path,
                absl::StrCat("too large: at most ", kMaxNodes, " values, nested ", kMaxDepth,
                             " deep (aliases count in full)"));
      overflow_ = true;
      return nullptr;
    }
    document_.places.emplace(path, PlaceOf(node.Mark()));
    if (node.IsMap()) return ConvertMap(node, path, depth);
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

  void Problem(const YAML::Mark& mark, const std::string& path, const std::string& text) {
    const Place place = PlaceOf(mark);
    document_.problems.push_back(
        absl::StrCat(place.line, ":", place.column, ": ", path.empty() ? "" : path + ": ", text));
  }

  nlohmann::json ConvertMap(const YAML::Node& node, const std::string& path, int depth) {
    nlohmann::json object = nlohmann::json::object();
    for (const auto& entry : node) {
      if (overflow_) break;
      if (!entry.first.IsScalar()) {
        Problem(entry.first.Mark(), path, "a key must be a plain name");
        continue;
      }
      const std::string key = entry.first.Scalar();
      const std::string child = Child(path, key);
      if (object.contains(key)) Problem(entry.first.Mark(), child, "the key stands twice");
      document_.places[child] = PlaceOf(entry.first.Mark());
      object[key] = Convert(entry.second, child, depth + 1);
    }
    return object;
  }

  // YAML 1.2: only true and false are booleans, "no" and "on" are text; quoted scalars are text.
  nlohmann::json ConvertScalar(const YAML::Node& node, const std::string& path) {
    const std::string& text = node.Scalar();
    if (node.Tag() == "!") return text;
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (text.empty() || text == "null" || text == "~" || text == "Null" || text == "NULL") return nullptr;
    int64_t integer = 0;
    const bool digits = text.find_first_not_of("+-0123456789") == std::string::npos;
    if (digits && absl::SimpleAtoi(text, &integer)) return integer;
    const bool number_like = text.find_first_not_of("+-.0123456789eE") == std::string::npos &&
                             text.find_first_of("0123456789") != std::string::npos;
    double real = 0;
    if (number_like && absl::SimpleAtod(text, &real)) {
      if (std::isfinite(real)) return real;
      Problem(node.Mark(), path, absl::StrCat(text, " is too large for a number"));
      return nullptr;
    }
    if (text == ".nan" || text == ".NaN" || text == ".NAN" || absl::EndsWith(text, ".inf") ||
        absl::EndsWith(text, ".Inf") || absl::EndsWith(text, ".INF")) {
      Problem(node.Mark(), path, absl::StrCat(text, " is not allowed; give a finite number"));
      return nullptr;
    }
    return text;
  }

  YamlDocument& document_;
  int nodes_ = 0;
  bool overflow_ = false;
};

}  // namespace

absl::StatusOr<YamlDocument> ParseYaml(const std::string& text) {
  if (text.size() > kMaxBytes)
    return absl::InvalidArgumentError(absl::StrCat("1:1: ", text.size(), " bytes; a job file has at most ", kMaxBytes));
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
    return absl::InvalidArgumentError(
        absl::StrCat(error.mark.line + 1, ":", error.mark.column + 1, ": not YAML: ", error.msg));
  }
}

}  // namespace athanor

#include "athanor/tools/load_save.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "athanor/base/file_system.h"
#include "athanor/base/json_text.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/formats/npy.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/io/tensor_file.h"
#include "athanor/tools/compression.h"
#include "athanor/tools/yaml_json.h"

namespace athanor {
namespace {

using nlohmann::json;

constexpr char kKnown[] =
    ".safetensors .pt .pth .bin .npz .npy .json .yaml .yml .jsonl .csv .tsv .txt .md .log, with .gz or .zst behind";

std::string EndingOf(const std::string& path) {
  return absl::AsciiStrToLower(std::filesystem::path(std::string(WithoutCompression(path))).extension().string());
}

absl::Status WrongEnding(const std::string& path, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": found the ending \"", EndingOf(path), "\"; allowed: ", allowed));
}

absl::StatusOr<std::string> ReadWhole(const std::string& path, const LoadOptions& options) {
  ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, options.limit_bytes));
  absl::StatusOr<std::string> unpacked = Unpack(CompressionOf(path), bytes, options.limit_bytes);
  return unpacked.ok() ? std::move(unpacked) : absl::StatusOr<std::string>(Annotate(unpacked.status(), path));
}

absl::Status WriteWhole(const std::string& path, const std::string& bytes) {
  absl::StatusOr<std::string> packed = Pack(CompressionOf(path), bytes);
  if (!packed.ok()) return Annotate(packed.status(), path);
  return WriteFileAtomically(path, *packed);
}

// A file beside `path` for readers and writers that want one; removed with the object.
class Beside {
 public:
  explicit Beside(const std::string& path) : path_(absl::StrCat(path, ".tmp-", getpid())) {}
  ~Beside() { RemoveFile(path_); }
  Beside(const Beside&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

absl::StatusOr<Loaded> LoadTensors(const std::string& path, const std::string& ending, const LoadOptions& options) {
  if (ending == ".npz" || ending == ".safetensors") {
    ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(path, options));
    if (ending == ".npz") return ParseNpz(path, bytes.data(), bytes.size());
    ASSIGN_OR_RETURN(TensorFile file, ParseTensorFile(path, bytes.data(), static_cast<int64_t>(bytes.size())));
    return std::move(file.tensors);
  }
  if (CompressionOf(path) == Compression::kNone) {
    ASSIGN_OR_RETURN(TensorFile file, ReadStateDictFile(path));
    return std::move(file.tensors);
  }
  ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(path, options));
  const Beside plain(path);
  RETURN_IF_ERROR(WriteFileAtomically(plain.path(), bytes));
  ASSIGN_OR_RETURN(TensorFile file, ReadStateDictFile(plain.path()));
  return std::move(file.tensors);
}

absl::StatusOr<json> ParseJson(const std::string& path, const std::string& text) {
  json value = ParseJsonText(text);
  if (value.is_discarded()) return absl::DataLossError(absl::StrCat(path, ": ", JsonProblem(text)));
  return value;
}

absl::StatusOr<json> ParseLines(const std::string& path, const std::string& text) {
  json lines = json::array();
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    json value = ParseJsonText({line.data(), line.size()});
    if (value.is_discarded())
      return absl::DataLossError(absl::StrCat(path, ":", number, ": ", JsonProblem({line.data(), line.size()})));
    lines.push_back(std::move(value));
  }
  return lines;
}

}  // namespace

absl::StatusOr<Loaded> Load(const std::string& path, const LoadOptions& options) {
  const std::string ending = EndingOf(path);
  if (ending == ".safetensors" || ending == ".pt" || ending == ".pth" || ending == ".bin" || ending == ".npz")
    return LoadTensors(path, ending, options);
  if (ending == ".csv" || ending == ".tsv") return LoadTable(path, options);
  const bool text = ending == ".txt" || ending == ".md" || ending == ".log";
  const bool value = ending == ".json" || ending == ".yaml" || ending == ".yml" || ending == ".jsonl";
  if (!text && !value && ending != ".npy") return WrongEnding(path, kKnown);
  ASSIGN_OR_RETURN(std::string bytes, ReadWhole(path, options));
  if (text) return bytes;
  if (ending == ".npy") return ParseNpy(path, bytes.data(), bytes.size());
  if (ending == ".json") return ParseJson(path, bytes);
  if (ending == ".jsonl") return ParseLines(path, bytes);
  absl::StatusOr<json> yaml = ParseYaml(bytes);
  if (!yaml.ok()) return absl::DataLossError(absl::StrCat(path, ": ", yaml.status().message()));
  return *std::move(yaml);
}

absl::StatusOr<Table> LoadTable(const std::string& path, const LoadOptions& options) {
  const std::string ending = EndingOf(path);
  if (ending != ".csv" && ending != ".tsv" && ending != ".jsonl") return WrongEnding(path, ".csv .tsv .jsonl");
  ASSIGN_OR_RETURN(const std::string text, ReadWhole(path, options));
  if (ending == ".jsonl") return ParseJsonLinesTable(path, text);
  return ParseCsv(path, text, ending == ".csv" ? ',' : '\t');
}

absl::Status Save(const std::string& path, const json& value) {
  const std::string ending = EndingOf(path);
  if (ending == ".yaml" || ending == ".yml") return WriteWhole(path, FormatYaml(value));
  if (ending != ".json" && ending != ".jsonl") return WrongEnding(path, ".json .yaml .yml .jsonl");
  try {
    if (ending == ".json") return WriteWhole(path, value.dump(2) + "\n");
    if (!value.is_array()) return absl::InvalidArgumentError(absl::StrCat(path, ": JSON lines need a list"));
    std::string lines;
    for (const json& item : value) absl::StrAppend(&lines, item.dump(), "\n");
    return WriteWhole(path, lines);
  } catch (const json::exception& error) {  // text that is not UTF-8
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
}

absl::Status Save(const std::string& path, const Tensors& tensors) {
  const std::string ending = EndingOf(path);
  const bool pickled = ending == ".pt" || ending == ".pth" || ending == ".bin";
  if (!pickled && ending != ".safetensors" && ending != ".npz")
    return WrongEnding(path, ".safetensors .pt .pth .bin .npz");
  const bool packed = CompressionOf(path) != Compression::kNone;
  const Beside plain(path);
  const std::string& target = packed ? plain.path() : path;
  RETURN_IF_ERROR(pickled            ? WriteStateDictFile(target, tensors)
                  : ending == ".npz" ? WriteNpz(target, tensors)
                                     : WriteTensorFile(target, tensors));
  if (!packed) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(target, LoadOptions().limit_bytes));
  return WriteWhole(path, bytes);
}

absl::Status Save(const std::string& path, const torch::Tensor& tensor) {
  if (EndingOf(path) != ".npy") return WrongEnding(path, ".npy");
  if (CompressionOf(path) == Compression::kNone) return WriteNpy(path, tensor);
  const Beside plain(path);
  RETURN_IF_ERROR(WriteNpy(plain.path(), tensor));
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(plain.path(), LoadOptions().limit_bytes));
  return WriteWhole(path, bytes);
}

absl::Status Save(const std::string& path, const Table& table) {
  const std::string ending = EndingOf(path);
  if (ending != ".csv" && ending != ".tsv") return WrongEnding(path, ".csv .tsv");
  return WriteWhole(path, FormatCsv(table, ending == ".csv" ? ',' : '\t'));
}

absl::Status SaveText(const std::string& path, const std::string& text) {
  return WriteWhole(path, text);
}

}  // namespace athanor

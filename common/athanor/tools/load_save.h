// One call to read a file and one to write it, by its ending:
//
//   .safetensors .pt .pth .bin .npz      tensors by name         .npy     one tensor
//   .json .yaml .yml                     a value                 .jsonl   a value a line (a list of them)
//   .csv .tsv                            a table                 .txt .md .log   text
//
// with ".gz" or ".zst" behind any of them.
//
//   ASSIGN_OR_RETURN(Loaded data, Load("run/results.json.zst"));
//   const nlohmann::json& results = std::get<nlohmann::json>(data);
//   RETURN_IF_ERROR(Save("weights.safetensors", tensors));
//
// Loading executes nothing: of a .pt file only tensors in (nested) dictionaries are taken. Writing is atomic. Errors
// name the path: NOT_FOUND, DATA_LOSS, and INVALID_ARGUMENT for an ending that is not known or does not go with the
// data. Thread-safe.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <variant>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/tools/table.h"

namespace athanor {

using Tensors = std::map<std::string, torch::Tensor>;
using Loaded = std::variant<nlohmann::json, Tensors, torch::Tensor, Table, std::string>;

struct LoadOptions {
  size_t limit_bytes = size_t{16} << 30;  // of the file, and of what it unpacks to
};

absl::StatusOr<Loaded> Load(const std::string& path, const LoadOptions& options = {});
// A table from .csv, .tsv or .jsonl.
absl::StatusOr<Table> LoadTable(const std::string& path, const LoadOptions& options = {});

absl::Status Save(const std::string& path, const nlohmann::json& value);  // .json .yaml .yml .jsonl
absl::Status Save(const std::string& path, const Tensors& tensors);       // .safetensors .pt .pth .bin .npz
absl::Status Save(const std::string& path, const torch::Tensor& tensor);  // .npy
absl::Status Save(const std::string& path, const Table& table);           // .csv .tsv
absl::Status SaveText(const std::string& path, const std::string& text);  // any ending

}  // namespace athanor

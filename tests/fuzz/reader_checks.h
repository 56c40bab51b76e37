// What the targets of readers share.
#pragma once

#include <torch/torch.h>

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "tests/fuzz/target.h"

namespace athanor::fuzz {

using Codes = std::initializer_list<absl::StatusCode>;
inline constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
inline constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Whether it was accepted. An error has one of `codes`, names `name` and does not come from a lack of memory: what was
// promised by a few bytes must be refused before it is asked for.
bool Accepted(const absl::Status& status, std::string_view name, Codes codes);

// In memory where the system has such a folder; removed with the process.
const std::string& ScratchFolder();
// The path of a file of the scratch folder that holds `bytes`.
std::string Scratch(const std::string& file, std::string_view bytes);

// Contiguous, owning exactly its memory, readable to the last byte.
void CheckTensor(const torch::Tensor& tensor);
void CheckSame(const torch::Tensor& a, const torch::Tensor& b);
void CheckSame(const std::map<std::string, torch::Tensor>& a, const std::map<std::string, torch::Tensor>& b);

}  // namespace athanor::fuzz

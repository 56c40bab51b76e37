#include "athanor/metrics/state_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace athanor {
namespace {

std::string SizesText(torch::IntArrayRef sizes) {
  const auto one = [](std::string* out, int64_t size) {
    absl::StrAppend(out, size == StateReader::kAnySize ? "N" : absl::StrCat(size));
  };
  return absl::StrCat("[", absl::StrJoin(sizes, ", ", one), "]");
}

bool Fit(torch::IntArrayRef found, const std::optional<std::vector<int64_t>>& sizes) {
  if (!sizes) return !found.empty();
  const auto same = [](int64_t size, int64_t wanted) { return wanted == StateReader::kAnySize || size == wanted; };
  return std::equal(found.begin(), found.end(), sizes->begin(), sizes->end(), same);
}

}  // namespace

absl::Status StateReader::Wrong(const std::string& key, const torch::Tensor& found, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat("metric state '", key, "': found ", c10::toString(found.scalar_type()),
                                                 " ", SizesText(found.sizes()), "; allowed: ", allowed));
}

absl::StatusOr<torch::Tensor> StateReader::Take(const std::string& key, const std::vector<torch::ScalarType>& dtypes,
                                                const std::optional<std::vector<int64_t>>& sizes) {
  const auto found = state_.find(key);
  if (found == state_.end()) return absl::InvalidArgumentError(absl::StrCat("metric state '", key, "': missing"));
  const torch::Tensor& tensor = found->second;
  if (!tensor.defined() || tensor.layout() != torch::kStrided)
    return absl::InvalidArgumentError(absl::StrCat("metric state '", key, "': not a dense tensor"));
  const bool known = dtypes.empty() || std::count(dtypes.begin(), dtypes.end(), tensor.scalar_type()) > 0;
  if (!known || !Fit(tensor.sizes(), sizes)) {
    const auto name = [](std::string* out, torch::ScalarType dtype) { absl::StrAppend(out, c10::toString(dtype)); };
    const std::string types = dtypes.empty() ? "any dtype" : absl::StrJoin(dtypes, " or ", name);
    return Wrong(key, tensor, absl::StrCat(types, " ", sizes ? SizesText(*sizes) : "[N, …]"));
  }
  taken_.insert(key);
  return tensor.detach().clone();
}

absl::Status StateReader::Done() const {
  for (const auto& [key, tensor] : state_) {
    if (!taken_.contains(key))
      return absl::InvalidArgumentError(absl::StrCat("metric state '", key, "': these metrics do not know it"));
  }
  return absl::OkStatus();
}

}  // namespace athanor

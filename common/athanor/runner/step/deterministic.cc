#include "athanor/runner/step/deterministic.h"

#include <ATen/Context.h>

#include <cstdlib>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr char kVariable[] = "CUBLAS_WORKSPACE_CONFIG";

}  // namespace

absl::Status UseDeterministicAlgorithms(const torch::Device& device) {
  if (device.is_cuda()) {
    setenv(kVariable, ":4096:8", /*overwrite=*/0);
    const std::string_view found = std::getenv(kVariable);
    if (found != ":4096:8" && found != ":16:8") {
      return absl::InvalidArgumentError(absl::StrCat("deterministic: ", kVariable, " is \"", std::string(found),
                                                     "\"; allowed: :4096:8 or :16:8, or leave it unset"));
    }
  }
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setBenchmarkCuDNN(false);
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  return absl::OkStatus();
}

}  // namespace athanor

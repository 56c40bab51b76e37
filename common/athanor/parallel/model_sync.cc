#include "athanor/parallel/model_sync.h"

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/process_group.h"
#include "athanor/torch/module_tensors.h"

namespace athanor {

absl::Status CompareModels(const torch::nn::Module& module, const Membership& members) {
  if (!members.several()) return absl::OkStatus();
  std::string text;  // the same exactly when the lists of tensors are
  const auto describe = [&](const std::vector<std::pair<std::string, torch::Tensor>>& tensors) {
    for (const auto& [name, tensor] : tensors)
      absl::StrAppend(&text, name, c10::str(tensor.sizes()), c10::toString(tensor.scalar_type()), ";");
  };
  describe(DistinctParameters(module));
  describe(DistinctBuffers(module));
  const auto signature = static_cast<int64_t>(std::hash<std::string>()(text));
  ASSIGN_OR_RETURN(const Agreement agreement, members.group()->AllAgree({signature}));
  if (agreement.min[0] == agreement.max[0]) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "reducer: the ranks' models differ in names, shapes or types of parameters or buffers");
}

absl::Status BroadcastFromMain(const std::vector<torch::Tensor>& tensors, const Membership& members) {
  if (!members.several()) return absl::OkStatus();
  const torch::NoGradGuard no_grad;
  for (const torch::Tensor& tensor : tensors) {
    torch::Tensor dense = tensor.detach().contiguous();
    RETURN_IF_ERROR(members.group()->Broadcast(dense, 0));
    if (!dense.is_alias_of(tensor)) tensor.detach().copy_(dense);
  }
  return absl::OkStatus();
}

}  // namespace athanor

#include "athanor/parallel/gradient_reducer.h"

#include <functional>
#include <string>
#include <unordered_map>
#include <utility>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/host_memory_group.h"
#include "athanor/tensor/torch_status.h"

namespace athanor {
namespace {

// Reduces a bucket through shared memory, on the training thread: on one machine the ranks' cores have nothing better
// to do.
class HostMemoryHook : public c10d::CommHookInterface {
 public:
  HostMemoryHook(HostMemoryGroup* memory, int world_size) : memory_(memory), scale_(1.0 / world_size) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    torch::Tensor& buffer = bucket.getBufferRef();
    const absl::Status reduced = memory_->AllReduce(buffer.data_ptr(), buffer.numel(), buffer.scalar_type(), scale_);
    if (!reduced.ok()) {
      TORCH_CHECK_WITH(DistBackendError, false, "gradient exchange: ", std::string(reduced.message()));
    }
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    future->markCompleted(c10::IValue(std::vector<torch::Tensor>{buffer}));
    return future;
  }

  torch::Tensor parseHookResult(const c10::IValue& result) override {
    return c10d::detail::parseCppCommHookResult(result);
  }

 private:
  HostMemoryGroup* memory_;
  double scale_;
};

// Two signatures agree exactly when the ranks' lists of tensors do.
int64_t Signature(const std::vector<std::pair<std::string, torch::Tensor>>& tensors) {
  std::string text;
  for (const auto& [name, tensor] : tensors)
    absl::StrAppend(&text, name, c10::str(tensor.sizes()), c10::toString(tensor.scalar_type()), ";");
  return static_cast<int64_t>(std::hash<std::string>()(text));
}

}  // namespace

struct GradientReducer::Impl {
  ProcessGroup* group = nullptr;
  std::vector<torch::Tensor> parameters;
  std::vector<torch::Tensor> buffers;
  std::vector<std::vector<size_t>> buckets;
  std::unique_ptr<c10d::Reducer> reducer;
  bool find_unused = false;
  bool settled = false;

  absl::Status Broadcast(const std::vector<torch::Tensor>& tensors) {
    torch::NoGradGuard no_grad;
    for (const torch::Tensor& tensor : tensors) {
      torch::Tensor dense = tensor.detach().contiguous();
      RETURN_IF_ERROR(group->Broadcast(dense, 0));
      if (!dense.is_alias_of(tensor)) tensor.detach().copy_(dense);
    }
    return absl::OkStatus();
  }
};

GradientReducer::GradientReducer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GradientReducer::~GradientReducer() {
  DropGradients();
  RunTorch("closing the reducer", [&] { impl_->reducer.reset(); }).IgnoreError();
}

absl::StatusOr<std::unique_ptr<GradientReducer>> GradientReducer::Create(const torch::nn::Module& module,
                                                                         ProcessGroup* group,
                                                                         const GradientReducerOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->group = group;
  impl->find_unused = options.find_unused_parameters;
  std::vector<std::pair<std::string, torch::Tensor>> described;
  std::unordered_map<size_t, std::string> names;
  for (const auto& item : module.named_parameters()) {
    described.emplace_back(item.key(), item.value());
    if (!item.value().requires_grad()) {
      impl->buffers.push_back(item.value());  // frozen: equal everywhere from the first broadcast on
      continue;
    }
    names[impl->parameters.size()] = item.key();
    impl->parameters.push_back(item.value());
  }
  for (const auto& item : module.named_buffers()) {
    described.emplace_back(item.key(), item.value());
    if (item.value().defined()) impl->buffers.push_back(item.value());
  }
  const int64_t signature = Signature(described);
  ASSIGN_OR_RETURN(Agreement agreement, group->AllAgree({signature}));
  if (agreement.min[0] != agreement.max[0]) {
    return absl::InvalidArgumentError(
        "reducer: the ranks' models differ in names, shapes or types of parameters or buffers");
  }
  if (impl->parameters.empty())
    return absl::InvalidArgumentError("reducer: the model has no parameter that needs a gradient");
  RETURN_IF_ERROR(RunTorch("building the reducer", [&] {
    // Last registered, first ready.
    std::vector<torch::Tensor> reversed(impl->parameters.rbegin(), impl->parameters.rend());
    impl->buckets =
        std::get<0>(c10d::compute_bucket_assignment_by_size(reversed, {static_cast<size_t>(options.bucket_bytes)}));
    for (auto& bucket : impl->buckets) {
      for (size_t& index : bucket) index = impl->parameters.size() - 1 - index;
    }
    impl->reducer = std::make_unique<c10d::Reducer>(
        impl->parameters, impl->buckets,
        c10::intrusive_ptr<c10d::ProcessGroup>::unsafe_reclaim_from_nonowning(&group->c10d()),
        std::vector<bool>(impl->parameters.size(), false), options.bucket_bytes, options.find_unused_parameters,
        /*gradient_as_bucket_view=*/true, names, /*first_bucket_bytes_cap=*/options.bucket_bytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>{});
    bool all_supported = true;
    for (const torch::Tensor& parameter : impl->parameters) {
      all_supported &= parameter.is_cpu() && HostMemoryGroup::Supports(parameter.scalar_type());
    }
    if (group->host_memory() != nullptr && all_supported) {
      impl->reducer->register_comm_hook(std::make_unique<HostMemoryHook>(group->host_memory(), group->world_size()));
    }
  }));
  std::unique_ptr<GradientReducer> reducer(new GradientReducer(std::move(impl)));
  RETURN_IF_ERROR(reducer->SyncModel());
  return reducer;
}

void GradientReducer::PrepareForBackward(const torch::Tensor& loss) {
  impl_->reducer->prepare_for_backward(impl_->find_unused ? std::vector<torch::Tensor>{loss}
                                                          : std::vector<torch::Tensor>{});
}

void GradientReducer::FinishBackward() {
  if (impl_->settled) return;
  impl_->settled = true;
  // After its first pass Reducer wants to order buckets by arrival. A restarted rank would begin with the other order,
  // and sums of three and more ranks would differ in their last bits: let it have its way once, then put the fixed
  // order back.
  if (!impl_->reducer->should_rebuild_buckets()) return;
  std::vector<torch::Tensor> gradients;
  for (torch::Tensor& parameter : impl_->parameters) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad().clone() : torch::Tensor());
  }
  DropGradients();
  impl_->reducer->rebuild_buckets();
  impl_->reducer->initialize_buckets(impl_->buckets);
  for (size_t i = 0; i < gradients.size(); ++i) impl_->parameters[i].mutable_grad() = gradients[i];
}

void GradientReducer::DropGradients() {
  for (torch::Tensor& parameter : impl_->parameters) parameter.mutable_grad().reset();
}

absl::Status GradientReducer::SyncBuffers() {
  return impl_->Broadcast(impl_->buffers);
}

absl::Status GradientReducer::SyncModel() {
  RETURN_IF_ERROR(impl_->Broadcast(impl_->parameters));
  return SyncBuffers();
}

}  // namespace athanor

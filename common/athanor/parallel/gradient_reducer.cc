#include "athanor/parallel/gradient_reducer.h"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "athanor/base/status_macros.h"
#include "athanor/parallel/agree_on_status.h"
#include "athanor/parallel/host_memory_group.h"
#include "athanor/parallel/model_sync.h"
#include "athanor/parallel/process_group.h"
#include "athanor/torch/module_tensors.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

// Averages gradients where they are, through shared memory, after backward: on one machine the ranks' cores have
// nothing better to do meanwhile, and without buckets no gradient is copied or held twice.
class HostMemoryExchange {
 public:
  HostMemoryExchange(HostMemoryGroup* memory, int world_size, bool find_unused, std::vector<torch::Tensor> parameters,
                     std::vector<std::string> names)
      : memory_(memory),
        world_size_(world_size),
        find_unused_(find_unused),
        parameters_(std::move(parameters)),
        names_(std::move(names)) {}

  static bool Serves(const ProcessGroup& group, const std::vector<torch::Tensor>& parameters) {
    return group.host_memory() != nullptr &&
           std::all_of(parameters.begin(), parameters.end(), [](const torch::Tensor& parameter) {
             return parameter.is_cpu() && HostMemoryGroup::Supports(parameter.scalar_type());
           });
  }

  void Run() {
    const torch::NoGradGuard no_grad;
    const std::vector<int64_t> used = CountUses();
    std::map<torch::ScalarType, std::vector<HostMemoryGroup::Piece>> pieces;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (used[i] == 0) continue;  // on no rank
      const torch::Tensor& gradient = Dense(&parameters_[i]);
      pieces[gradient.scalar_type()].push_back({gradient.data_ptr(), gradient.numel()});
    }
    for (const auto& [type, list] : pieces) Check(memory_->AllReduce(list, type, 1.0 / world_size_));
  }

 private:
  static void Check(const absl::Status& status) {
    if (!status.ok()) TORCH_CHECK_WITH(DistBackendError, false, "gradient exchange: ", std::string(status.message()));
  }

  // On how many ranks each parameter has a gradient.
  std::vector<int64_t> CountUses() {
    std::vector<int64_t> used(parameters_.size(), 1);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      used[i] = parameters_[i].grad().defined() ? 1 : 0;
      TORCH_CHECK(used[i] == 1 || find_unused_, "parameter '", names_[i],
                  "' has no gradient after backward; set comm.find_unused_parameters if the model leaves some out");
    }
    if (find_unused_) Check(memory_->AllReduce(used.data(), static_cast<int64_t>(used.size()), torch::kLong, 1.0));
    return used;
  }

  // In its parameter's memory order, which all ranks share.
  static const torch::Tensor& Dense(torch::Tensor* parameter) {
    torch::Tensor& gradient = parameter->mutable_grad();
    if (!gradient.defined()) {
      gradient = torch::zeros_like(*parameter);
    } else if (gradient.is_sparse() || gradient.strides() != parameter->strides() ||
               gradient.scalar_type() != parameter->scalar_type()) {
      gradient = torch::empty_like(*parameter).copy_(gradient.to_dense());
    }
    return gradient;
  }

  HostMemoryGroup* memory_;
  int world_size_;
  bool find_unused_;
  std::vector<torch::Tensor> parameters_;
  std::vector<std::string> names_;
};

}  // namespace

struct GradientReducer::Impl {
  Membership members;
  const torch::nn::Module* module = nullptr;
  std::vector<torch::Tensor> parameters;  // that need a gradient
  std::vector<torch::Tensor> frozen;
  std::vector<std::vector<size_t>> buckets;
  std::unique_ptr<HostMemoryExchange> exchange;  // one of the two
  std::unique_ptr<c10d::Reducer> reducer;
  std::unordered_map<size_t, std::string> names;  // of the parameters, by place
  GradientReducerOptions options;
  bool ran = false, settled = false;

  void Unseat() {
    for (torch::Tensor& parameter : parameters) parameter.mutable_grad().reset();
    RunTorch("closing the reducer", [&] { reducer.reset(); }).IgnoreError();
    exchange.reset();
    buckets.clear();
    ran = settled = false;
  }

  absl::Status BuildExchange() {
    if (!HostMemoryExchange::Serves(*members.group(), parameters)) return BuildReducer();
    std::vector<std::string> listed;
    for (size_t i = 0; i < parameters.size(); ++i) listed.push_back(names[i]);
    exchange = std::make_unique<HostMemoryExchange>(members.group()->host_memory(), members.group()->world_size(),
                                                    options.find_unused_parameters, parameters, std::move(listed));
    settled = true;
    return absl::OkStatus();
  }

  absl::Status BuildReducer() {
    return RunTorch("building the reducer", [&] {
      // Last registered, first ready.
      std::vector<torch::Tensor> reversed(parameters.rbegin(), parameters.rend());
      buckets =
          std::get<0>(c10d::compute_bucket_assignment_by_size(reversed, {static_cast<size_t>(options.bucket_bytes)}));
      for (auto& bucket : buckets) {
        for (size_t& index : bucket) index = parameters.size() - 1 - index;
      }
      reducer = std::make_unique<c10d::Reducer>(
          parameters, buckets,
          c10::intrusive_ptr<c10d::ProcessGroup>::unsafe_reclaim_from_nonowning(&members.group()->c10d()),
          std::vector<bool>(parameters.size(), false), options.bucket_bytes, options.find_unused_parameters,
          /*gradient_as_bucket_view=*/true, names, /*first_bucket_bytes_cap=*/options.bucket_bytes,
          /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>{});
    });
  }

  // After its first pass Reducer wants to order buckets by arrival. A restarted rank would begin with the other order,
  // and sums of three and more ranks would differ in their last bits: let it have its way once, then put the fixed
  // order back.
  void Settle() {
    if (settled || !ran) return;
    settled = true;
    if (!reducer->should_rebuild_buckets()) return;
    reducer->rebuild_buckets();
    reducer->initialize_buckets(buckets);
  }
};

GradientReducer::GradientReducer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GradientReducer::~GradientReducer() {
  impl_->Unseat();
}

absl::StatusOr<std::unique_ptr<GradientReducer>> GradientReducer::Create(const torch::nn::Module& module,
                                                                         const Membership& members,
                                                                         const GradientReducerOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->module = &module;
  impl->options = options;
  for (const auto& [name, parameter] : DistinctParameters(module)) {
    if (!parameter.requires_grad()) {
      impl->frozen.push_back(parameter);
      continue;
    }
    impl->names[impl->parameters.size()] = name;
    impl->parameters.push_back(parameter);
  }
  std::unique_ptr<GradientReducer> reducer(new GradientReducer(std::move(impl)));
  RETURN_IF_ERROR(reducer->Reseat(members));
  return reducer;
}

absl::Status GradientReducer::Reseat(const Membership& members) {
  impl_->Unseat();
  impl_->members = members;
  RETURN_IF_ERROR(CompareModels(*impl_->module, members));
  if (impl_->parameters.empty())
    return absl::InvalidArgumentError("reducer: the model has no parameter that needs a gradient");
  // What one rank alone can fail at is agreed before the weights travel.
  RETURN_IF_ERROR(AgreeOnStatus(members, impl_->BuildExchange()));
  return SyncModel();
}

void GradientReducer::PrepareForBackward(const torch::Tensor& loss) {
  if (impl_->exchange != nullptr) return;
  impl_->Settle();  // lbfgs exchanges several times between two drops
  impl_->reducer->prepare_for_backward(impl_->options.find_unused_parameters ? std::vector<torch::Tensor>{loss}
                                                                             : std::vector<torch::Tensor>{});
}

void GradientReducer::FinishBackward() {
  impl_->ran = true;
  if (impl_->exchange != nullptr) impl_->exchange->Run();
}

void GradientReducer::DropGradients() {
  for (torch::Tensor& parameter : impl_->parameters) parameter.mutable_grad().reset();
  impl_->Settle();
}

bool GradientReducer::settled() const {
  return impl_->settled;
}

absl::Status GradientReducer::SyncBuffers() {
  RETURN_IF_ERROR(BroadcastFromMain(impl_->frozen, impl_->members));
  std::vector<torch::Tensor> buffers;
  for (const auto& [name, buffer] : DistinctBuffers(*impl_->module)) buffers.push_back(buffer);
  return BroadcastFromMain(buffers, impl_->members);
}

absl::Status GradientReducer::SyncModel() {
  RETURN_IF_ERROR(BroadcastFromMain(impl_->parameters, impl_->members));
  return SyncBuffers();
}

}  // namespace athanor

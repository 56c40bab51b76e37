#include "athanor/parallel/strategies/parameter_watch.h"

#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

namespace athanor {
namespace {

// A key that LibTorch keeps for tests and uses nowhere.
constexpr c10::DispatchKey kMark = c10::DispatchKey::TESTING_ONLY_GenericWrapper;

struct Registry {
  std::shared_mutex mutex;
  std::unordered_map<const c10::StorageImpl*, ParameterWatch*> watches;
};

Registry& Watches() {
  static Registry& registry = *new Registry;
  return registry;
}

ParameterWatch* WatchOf(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage() || !tensor.key_set().has(kMark)) return nullptr;
  Registry& registry = Watches();
  const std::shared_lock lock(registry.mutex);
  const auto found = registry.watches.find(tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
  return found == registry.watches.end() ? nullptr : found->second;
}

// They read no memory. TorchScript's differentiable graphs detach every parameter ahead of its use.
bool OnlyLooks(const c10::FunctionSchema& schema) {
  const std::string& name = schema.name();
  return name == "aten::detach" || name == "aten::alias" || name == "aten::detach_" || name == "aten::size";
}

void Tell(const at::Tensor& tensor, bool writes, const char* op) {
  ParameterWatch* watch = WatchOf(tensor);
  if (watch == nullptr) return;
  if (writes) watch->OnWrite(op);
  watch->OnRead(op);
}

void Look(const c10::IValue& argument, bool writes, const char* op) {
  if (argument.isTensor()) return Tell(argument.toTensor(), writes, op);
  if (argument.isTensorList()) {
    for (const at::Tensor& tensor : argument.toTensorVector()) Tell(tensor, writes, op);
  } else if (argument.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& tensor : argument.toOptionalTensorVector()) {
      if (tensor.has_value()) Tell(*tensor, writes, op);
    }
  }
}

void Fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  if (!OnlyLooks(schema)) {
    const std::vector<c10::Argument>& parameters = schema.arguments();
    const auto arguments = torch::jit::last(*stack, parameters.size());
    for (size_t i = 0; i < parameters.size(); ++i) {
      const c10::AliasInfo* alias = parameters[i].alias_info();
      Look(arguments[i], alias != nullptr && alias->isWrite(), schema.name().c_str());
    }
  }
  const c10::impl::ExcludeDispatchKeyGuard guard(kMark);
  op.callBoxed(stack);
}

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericWrapper, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&Fallback>());
}

}  // namespace

WatchedStorage::WatchedStorage(const c10::Storage& storage, ParameterWatch* watch)
    : storage_(storage.unsafeGetStorageImpl()) {
  Registry& registry = Watches();
  const std::unique_lock lock(registry.mutex);
  registry.watches[storage_] = watch;
}

WatchedStorage::~WatchedStorage() {
  Registry& registry = Watches();
  const std::unique_lock lock(registry.mutex);
  registry.watches.erase(storage_);
}

torch::Tensor MarkedView(const c10::Storage& storage, int64_t offset, at::IntArrayRef sizes,
                         const torch::TensorOptions& options) {
  const torch::NoGradGuard no_gradient;
  const torch::Tensor like = torch::empty({0}, options);
  torch::Tensor view =
      at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), like.key_set().add(kMark), like.dtype());
  view.unsafeGetTensorImpl()->set_storage_offset(offset);
  view.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return view;
}

}  // namespace athanor

#include "tests/support/recorded_graph.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <utility>
#include <vector>

namespace athanor {
namespace {

// A dispatch key below autograd and above the kernels that nothing else registers for in C++.
constexpr c10::DispatchKey kKey = c10::DispatchKey::Fake;

struct Call {
  c10::OperatorHandle op;
  std::vector<c10::IValue> arguments, results;
};

thread_local std::vector<Call>* recording = nullptr;

void Tensors(const c10::IValue& value, std::vector<torch::Tensor>* out) {
  if (value.isTensor()) {
    out->push_back(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) Tensors(item, out);
  }
}

std::vector<torch::Tensor> Tensors(const std::vector<c10::IValue>& values) {
  std::vector<torch::Tensor> tensors;
  for (const c10::IValue& value : values) Tensors(value, &tensors);
  return tensors;
}

void Record(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto count = static_cast<int64_t>(op.schema().arguments().size());
  Call call{op, {stack->end() - count, stack->end()}, {}};
  {
    const c10::impl::ExcludeDispatchKeyGuard below(kKey);
    op.callBoxed(stack);
  }
  if (recording == nullptr) return;
  TORCH_CHECK(op.schema().name() != "aten::_local_scalar_dense", "captured work waits for the device");
  call.results.assign(stack->end() - static_cast<int64_t>(op.schema().returns().size()), stack->end());
  recording->push_back(std::move(call));
}

class RecordedGraph : public DeviceGraph {
 public:
  void Replay() override {
    const torch::NoGradGuard no_grad;
    for (const Call& call : calls) {
      torch::jit::Stack stack(call.arguments);
      call.op.callBoxed(&stack);
      const std::vector<torch::Tensor> fresh = Tensors(stack), kept = Tensors(call.results);
      for (size_t i = 0; i < fresh.size(); ++i) {
        if (fresh[i].defined() && !fresh[i].is_alias_of(kept[i])) kept[i].detach().copy_(fresh[i]);
      }
    }
  }
  std::vector<Call> calls;
};

class Recorder : public DeviceGraphs {
 public:
  void Aside(const Work& work) override { work(); }
  std::unique_ptr<DeviceGraph> Capture(const Work& work) override {
    auto graph = std::make_unique<RecordedGraph>();
    recording = &graph->calls;
    try {
      const c10::impl::IncludeDispatchKeyGuard record(kKey);
      work();
    } catch (...) {
      recording = nullptr;
      throw;
    }
    recording = nullptr;
    return graph;
  }
};

}  // namespace

std::shared_ptr<DeviceGraphs> RecordedGraphs() {
  return std::make_shared<Recorder>();
}

TORCH_LIBRARY_IMPL(_, Fake, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&Record>());
}

}  // namespace athanor

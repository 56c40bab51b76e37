#include "athanor/parallel/transport/host_backend.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/transport/pending_work.h"
#include "athanor/parallel/transport/tensor_arguments.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

using Tensors = std::vector<at::Tensor>;

Reduction ReductionOf(const c10d::ReduceOp& op) {
  switch (op) {
    case c10d::ReduceOp::SUM:
      return Reduction::kSum;
    case c10d::ReduceOp::AVG:
      return Reduction::kAverage;
    case c10d::ReduceOp::PRODUCT:
      return Reduction::kProduct;
    case c10d::ReduceOp::MIN:
      return Reduction::kMin;
    case c10d::ReduceOp::MAX:
      return Reduction::kMax;
    case c10d::ReduceOp::BAND:
      return Reduction::kAnd;
    case c10d::ReduceOp::BOR:
      return Reduction::kOr;
    case c10d::ReduceOp::BXOR:
      return Reduction::kXor;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "the athanor backend does not reduce by a factor that is given (PREMUL_SUM)");
  }
}

}  // namespace

// One call in the queue.
class HostBackend::CollectiveWork : public PendingWork {
 public:
  CollectiveWork(HostBackend* backend, c10d::OpType type, Tensors results, Body body, uint64_t number)
      : PendingWork(backend->getRank(), type, std::move(results)),
        backend_(backend),
        body_(std::move(body)),
        number_(number) {}

  bool wait(std::chrono::milliseconds timeout) override {
    if (!isCompleted()) backend_->Help(this);
    return PendingWork::wait(timeout);
  }
  uint64_t getSequencenumber() const override { return number_; }

  void Run(HostCollectives& collectives) {
    absl::Status status;
    const absl::Status thrown = RunTorch("collective", [&] { status = body_(collectives); });
    End(thrown.ok() ? status : thrown);
  }
  void End(const absl::Status& status) {
    body_ = nullptr;  // lets the tensors go that are no results
    Complete(status);
  }

 private:
  HostBackend* const backend_;
  Body body_;
  const uint64_t number_;
};

// A message under way, moved by the thread that waits for it.
class HostBackend::MessageWork : public PendingWork {
 public:
  MessageWork(HostBackend* backend, c10d::OpType type, const at::Tensor& tensor)
      : PendingWork(backend->getRank(), type, {tensor}), mailbox_(backend->mailbox_.get()) {}

  bool wait(std::chrono::milliseconds timeout) override {
    const absl::Time deadline =
        timeout == kNoTimeout ? absl::InfiniteFuture() : absl::Now() + absl::FromChrono(timeout);
    if (!isCompleted()) mailbox_->Help([this] { return isCompleted(); }, deadline);
    return PendingWork::wait(timeout);
  }

 private:
  Mailbox* const mailbox_;
};

absl::StatusOr<c10::intrusive_ptr<HostBackend>> HostBackend::Create(const PeersOptions& options,
                                                                    const AddressExchange& exchange) {
  ASSIGN_OR_RETURN(std::unique_ptr<Peers> for_collectives, Peers::Connect(options, exchange));
  ASSIGN_OR_RETURN(std::unique_ptr<Peers> for_messages, Peers::Connect(options, exchange));
  return c10::intrusive_ptr<HostBackend>::unsafe_steal_from_new(
      new HostBackend(std::make_unique<HostCollectives>(std::move(for_collectives), options.timeout),
                      std::make_unique<Mailbox>(std::move(for_messages)), options.timeout));
}

HostBackend::HostBackend(std::unique_ptr<HostCollectives> collectives, std::unique_ptr<Mailbox> mailbox,
                         absl::Duration timeout)
    : c10d::Backend(collectives->rank(), collectives->world_size()),
      collectives_(std::move(collectives)),
      mailbox_(std::move(mailbox)),
      timeout_(timeout),
      thread_([this] { Loop(); }) {}

HostBackend::~HostBackend() {
  std::deque<c10::intrusive_ptr<CollectiveWork>> rest;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    rest.swap(queue_);
    if (busy_) collectives_->Abort();
  }
  changed_.notify_all();
  thread_.join();
  for (const auto& work : rest) work->End(absl::UnavailableError("the group was closed"));
}

void HostBackend::RunFirst(std::unique_lock<std::mutex>& lock) {
  const c10::intrusive_ptr<CollectiveWork> work = std::move(queue_.front());
  queue_.pop_front();
  busy_ = true;
  collectives_->SetTimeout(timeout_);
  lock.unlock();
  work->Run(*collectives_);
  lock.lock();
  busy_ = false;
  if (!queue_.empty()) changed_.notify_all();
}

void HostBackend::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || (!busy_ && !queue_.empty()); });
    if (stopping_) return;
    RunFirst(lock);
  }
}

void HostBackend::Help(CollectiveWork* work) {
  std::unique_lock lock(mutex_);
  if (!busy_ && !stopping_ && !queue_.empty() && queue_.front().get() == work) RunFirst(lock);
}

HostBackend::WorkPtr HostBackend::Enqueue(c10d::OpType type, Tensors results, Body body) {
  c10::intrusive_ptr<CollectiveWork> work;
  {
    const std::lock_guard lock(mutex_);
    work = c10::make_intrusive<CollectiveWork>(this, type, std::move(results), std::move(body), ++calls_);
    queue_.push_back(work);
  }
  changed_.notify_all();
  return work;
}

void HostBackend::setTimeout(std::chrono::milliseconds timeout) {
  const std::lock_guard lock(mutex_);
  timeout_ = absl::FromChrono(timeout);
}

void HostBackend::abort() {
  collectives_->Abort();
  mailbox_->Abort();
}

uint64_t HostBackend::getSequenceNumberForGroup() {
  const std::lock_guard lock(mutex_);
  return calls_;
}

HostBackend::WorkPtr HostBackend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  const at::Tensor& tensor = Only(tensors, "broadcast");
  const int root = static_cast<int>(options.rootRank);
  CheckPeer(root, "broadcast");
  return Enqueue(c10d::OpType::BROADCAST, tensors, [tensor, root](HostCollectives& collectives) -> absl::Status {
    const Written written(tensor);
    RETURN_IF_ERROR(collectives.Broadcast(written.data(), tensor.numel(), tensor.scalar_type(), root));
    written.Finish();
    return absl::OkStatus();
  });
}

HostBackend::WorkPtr HostBackend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  Only(tensors, "allreduce");
  c10d::AllreduceCoalescedOptions coalesced;
  coalesced.reduceOp = options.reduceOp;
  return allreduce_coalesced(tensors, coalesced);
}

HostBackend::WorkPtr HostBackend::allreduce_coalesced(Tensors& tensors,
                                                      const c10d::AllreduceCoalescedOptions& options) {
  const Reduction reduction = ReductionOf(options.reduceOp);
  for (const at::Tensor& tensor : tensors) CheckTensor(tensor, "allreduce");
  return Enqueue(
      c10d::OpType::ALLREDUCE, tensors, [list = tensors, reduction](HostCollectives& collectives) -> absl::Status {
        for (const at::Tensor& tensor : list) {
          const Written written(tensor);
          RETURN_IF_ERROR(collectives.AllReduce(written.data(), tensor.numel(), tensor.scalar_type(), reduction));
          written.Finish();
        }
        return absl::OkStatus();
      });
}

HostBackend::WorkPtr HostBackend::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  const at::Tensor& tensor = Only(tensors, "reduce");
  const Reduction reduction = ReductionOf(options.reduceOp);
  const int root = static_cast<int>(options.rootRank);
  CheckPeer(root, "reduce");
  return Enqueue(
      c10d::OpType::REDUCE, tensors, [tensor, reduction, root](HostCollectives& collectives) -> absl::Status {
        const Written written(tensor);
        RETURN_IF_ERROR(collectives.Reduce(written.data(), tensor.numel(), tensor.scalar_type(), reduction, root));
        written.Finish();
        return absl::OkStatus();
      });
}

HostBackend::WorkPtr HostBackend::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                            const c10d::AllgatherOptions&) {
  const at::Tensor& input = Only(inputs, "allgather");
  const Tensors& parts = OnlyList(outputs, getSize(), "allgather");
  CheckTypes(parts, input.scalar_type(), "allgather");
  TORCH_CHECK_VALUE(parts[getRank()].numel() == input.numel(), "allgather: this rank gives ", input.numel(),
                    " elements, its place has ", parts[getRank()].numel());
  return Enqueue(c10d::OpType::ALLGATHER, parts, [input, parts](HostCollectives& collectives) -> absl::Status {
    const WrittenList written(parts);
    const at::Tensor mine = input.contiguous();
    RETURN_IF_ERROR(collectives.AllGather(mine.data_ptr(), written.data, written.counts, mine.scalar_type()));
    written.Finish();
    return absl::OkStatus();
  });
}

HostBackend::WorkPtr HostBackend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                                  const c10d::AllgatherOptions& options) {
  Tensors outputs = {output}, inputs = {input};
  return allgather_into_tensor_coalesced(outputs, inputs, options);
}

HostBackend::WorkPtr HostBackend::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                  const c10d::AllgatherOptions&) {
  TORCH_CHECK_VALUE(outputs.size() == inputs.size(), "all-gather: as many outputs as inputs are needed");
  for (size_t i = 0; i < outputs.size(); ++i) {
    CheckTensor(outputs[i], "all-gather");
    CheckTensor(inputs[i], "all-gather");
    CheckTypes({outputs[i]}, inputs[i].scalar_type(), "all-gather");
    TORCH_CHECK_VALUE(outputs[i].numel() == inputs[i].numel() * getSize(), "all-gather: the output has ",
                      outputs[i].numel(), " elements, ", getSize(), " ranks give ", inputs[i].numel(), " each");
  }
  const int size = getSize();
  return Enqueue(
      c10d::OpType::_ALLGATHER_BASE, outputs, [outputs, inputs, size](HostCollectives& collectives) -> absl::Status {
        for (size_t i = 0; i < outputs.size(); ++i) {
          const at::Tensor dense = outputs[i].contiguous();
          const WrittenList written(EvenParts(dense, size, "all-gather"));
          const at::Tensor mine = inputs[i].contiguous();
          RETURN_IF_ERROR(collectives.AllGather(mine.data_ptr(), written.data, written.counts, mine.scalar_type()));
          if (!dense.is_same(outputs[i])) outputs[i].copy_(dense);
        }
        return absl::OkStatus();
      });
}

HostBackend::WorkPtr HostBackend::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                         const c10d::GatherOptions& options) {
  const at::Tensor& input = Only(inputs, "gather");
  const int root = static_cast<int>(options.rootRank);
  CheckPeer(root, "gather");
  Tensors parts;
  if (getRank() == root) {
    parts = OnlyList(outputs, getSize(), "gather");
    CheckTypes(parts, input.scalar_type(), "gather");
  }
  return Enqueue(c10d::OpType::GATHER, parts, [input, parts, root](HostCollectives& collectives) -> absl::Status {
    const WrittenList written(parts);
    const at::Tensor mine = input.contiguous();
    RETURN_IF_ERROR(collectives.Gather(mine.data_ptr(), written.data, mine.numel(), mine.scalar_type(), root));
    written.Finish();
    return absl::OkStatus();
  });
}

HostBackend::WorkPtr HostBackend::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                          const c10d::ScatterOptions& options) {
  const at::Tensor& output = Only(outputs, "scatter");
  const int root = static_cast<int>(options.rootRank);
  CheckPeer(root, "scatter");
  Tensors parts;
  if (getRank() == root) {
    parts = OnlyList(inputs, getSize(), "scatter");
    CheckTypes(parts, output.scalar_type(), "scatter");
  }
  return Enqueue(c10d::OpType::SCATTER, outputs, [output, parts, root](HostCollectives& collectives) -> absl::Status {
    const ReadList read(parts);
    const Written written(output);
    RETURN_IF_ERROR(collectives.Scatter(read.data, written.data(), output.numel(), output.scalar_type(), root));
    written.Finish();
    return absl::OkStatus();
  });
}

HostBackend::WorkPtr HostBackend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                 const c10d::ReduceScatterOptions& options) {
  const at::Tensor& output = Only(outputs, "reduce_scatter");
  const Tensors& parts = OnlyList(inputs, getSize(), "reduce_scatter");
  CheckTypes(parts, output.scalar_type(), "reduce_scatter");
  TORCH_CHECK_VALUE(parts[getRank()].numel() == output.numel(), "reduce_scatter: the output has ", output.numel(),
                    " elements, this rank's part ", parts[getRank()].numel());
  const Reduction reduction = ReductionOf(options.reduceOp);
  return Enqueue(
      c10d::OpType::REDUCE_SCATTER, outputs, [output, parts, reduction](HostCollectives& collectives) -> absl::Status {
        const ReadList read(parts);
        const Written written(output);
        RETURN_IF_ERROR(
            collectives.ReduceScatter(read.data, read.counts, written.data(), output.scalar_type(), reduction));
        written.Finish();
        return absl::OkStatus();
      });
}

HostBackend::WorkPtr HostBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                       const c10d::ReduceScatterOptions& options) {
  Tensors outputs = {output}, inputs = {input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

HostBackend::WorkPtr HostBackend::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                  const c10d::ReduceScatterOptions& options) {
  TORCH_CHECK_VALUE(outputs.size() == inputs.size(), "reduce-scatter: as many outputs as inputs are needed");
  for (size_t i = 0; i < outputs.size(); ++i) {
    CheckTensor(outputs[i], "reduce-scatter");
    CheckTensor(inputs[i], "reduce-scatter");
    CheckTypes({outputs[i]}, inputs[i].scalar_type(), "reduce-scatter");
    TORCH_CHECK_VALUE(inputs[i].numel() == outputs[i].numel() * getSize(), "reduce-scatter: the input has ",
                      inputs[i].numel(), " elements for ", getSize(), " ranks of ", outputs[i].numel());
  }
  const Reduction reduction = ReductionOf(options.reduceOp);
  const int size = getSize();
  return Enqueue(c10d::OpType::_REDUCE_SCATTER_BASE, outputs,
                 [outputs, inputs, reduction, size](HostCollectives& collectives) -> absl::Status {
                   for (size_t i = 0; i < outputs.size(); ++i) {
                     const ReadList read(EvenParts(inputs[i].contiguous(), size, "reduce-scatter"));
                     const Written written(outputs[i]);
                     RETURN_IF_ERROR(collectives.ReduceScatter(read.data, read.counts, written.data(),
                                                               outputs[i].scalar_type(), reduction));
                     written.Finish();
                   }
                   return absl::OkStatus();
                 });
}

HostBackend::WorkPtr HostBackend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                                std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
                                                const c10d::AllToAllOptions&) {
  const auto parts = [this](const at::Tensor& tensor, const std::vector<int64_t>& splits) {
    CheckTensor(tensor, "alltoall");
    if (splits.empty()) return EvenParts(tensor.contiguous(), getSize(), "alltoall");
    TORCH_CHECK_VALUE(static_cast<int>(splits.size()) == getSize(), "alltoall: ", splits.size(), " splits for ",
                      getSize(), " ranks");
    const int64_t rows = std::accumulate(splits.begin(), splits.end(), int64_t{0});
    TORCH_CHECK_VALUE(tensor.dim() > 0 && tensor.size(0) == rows, "alltoall: the splits add up to ", rows,
                      " rows, the tensor is ", tensor.sizes());
    return tensor.split_with_sizes(splits, 0);
  };
  Tensors outputs = parts(output, output_splits);
  Tensors inputs = parts(input, input_splits);
  const at::Tensor dense = output.contiguous();
  TORCH_CHECK_VALUE(dense.is_same(output), "alltoall: the output must be contiguous");
  return alltoall(outputs, inputs, {});
}

HostBackend::WorkPtr HostBackend::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions&) {
  TORCH_CHECK_VALUE(static_cast<int>(outputs.size()) == getSize() && static_cast<int>(inputs.size()) == getSize(),
                    "alltoall: a tensor for each of the ", getSize(), " ranks is needed");
  for (const Tensors* list : {&outputs, &inputs}) {
    for (const at::Tensor& tensor : *list) CheckTensor(tensor, "alltoall");
    CheckTypes(*list, inputs[0].scalar_type(), "alltoall");
  }
  return Enqueue(c10d::OpType::ALLTOALL, outputs, [outputs, inputs](HostCollectives& collectives) -> absl::Status {
    const ReadList read(inputs);
    const WrittenList written(outputs);
    RETURN_IF_ERROR(
        collectives.AllToAll(read.data, read.counts, written.data, written.counts, inputs[0].scalar_type()));
    written.Finish();
    return absl::OkStatus();
  });
}

void HostBackend::CheckPeer(int peer, const char* call) const {
  TORCH_CHECK_VALUE(peer >= 0 && peer < getSize(), call, ": there is no rank ", peer, " among ", getSize());
}

HostBackend::WorkPtr HostBackend::send(Tensors& tensors, int peer, int tag) {
  const at::Tensor tensor = Only(tensors, "send").contiguous();
  CheckPeer(peer, "send");
  TORCH_CHECK_VALUE(peer != getRank(), "send: rank ", peer, " is this one");
  auto work = c10::make_intrusive<MessageWork>(this, c10d::OpType::SEND, tensor);
  mailbox_->Send({.peer = peer,
                  .tag = tag,
                  .data = tensor.data_ptr(),
                  .count = tensor.numel(),
                  .type = tensor.scalar_type(),
                  .timeout = timeout_,
                  .done = [work](const Mailbox::Result& result) { work->Complete(result.status, result.peer); }});
  return work;
}

HostBackend::WorkPtr HostBackend::ReceiveFrom(Tensors& tensors, int peer, int tag) {
  const at::Tensor& tensor = Only(tensors, "recv");
  auto written = std::make_shared<Written>(tensor);
  auto work = c10::make_intrusive<MessageWork>(this, c10d::OpType::RECV, tensor);
  mailbox_->Receive({.peer = peer,
                     .tag = tag,
                     .data = written->data(),
                     .count = tensor.numel(),
                     .type = tensor.scalar_type(),
                     .timeout = timeout_,
                     .done = [work, written](const Mailbox::Result& result) {
                       if (result.status.ok()) written->Finish();
                       work->Complete(result.status, result.peer);
                     }});
  return work;
}

HostBackend::WorkPtr HostBackend::recv(Tensors& tensors, int peer, int tag) {
  CheckPeer(peer, "recv");
  TORCH_CHECK_VALUE(peer != getRank(), "recv: rank ", peer, " is this one");
  return ReceiveFrom(tensors, peer, tag);
}

HostBackend::WorkPtr HostBackend::recvAnysource(Tensors& tensors, int tag) {
  return ReceiveFrom(tensors, Mailbox::kAnyPeer, tag);
}

HostBackend::WorkPtr HostBackend::barrier(const c10d::BarrierOptions&) {
  return Enqueue(c10d::OpType::BARRIER, {}, [](HostCollectives& collectives) { return collectives.Barrier(); });
}

}  // namespace athanor

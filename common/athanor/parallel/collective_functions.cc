#include "athanor/parallel/collective_functions.h"

#include "athanor/parallel/group_backend.h"

namespace athanor {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

int64_t AddressOf(ProcessGroup& group) {
  return reinterpret_cast<int64_t>(&group);
}

ProcessGroup& GroupOf(AutogradContext* context) {
  return *reinterpret_cast<ProcessGroup*>(context->saved_data.at("group").toInt());  // NOLINT: it outlives the graph
}

int64_t DimOf(AutogradContext* context) {
  return context->saved_data.at("dim").toInt();
}

torch::Tensor Sum(const torch::Tensor& x, ProcessGroup& group) {
  std::vector<torch::Tensor> sum = {x.contiguous().clone()};
  BackendOf(group).allreduce(sum)->wait();
  return sum[0];
}

torch::Tensor Concatenated(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  // Ranks are the first dimension of what comes: blocks go side by side along `dim` afterwards.
  torch::Tensor part = x.movedim(dim, 0).contiguous();
  std::vector<int64_t> sizes = part.sizes().vec();
  sizes[0] *= group.world_size();
  torch::Tensor all = torch::empty(sizes, part.options());
  BackendOf(group)._allgather_base(all, part)->wait();
  return all.movedim(0, dim).contiguous();
}

void CheckDivides(const torch::Tensor& x, int64_t dim, ProcessGroup& group, const char* function) {
  TORCH_CHECK_VALUE(x.size(dim) % group.world_size() == 0, function, ": dimension ", dim, " has ", x.size(dim),
                    " entries, no multiple of ", group.world_size(), " ranks");
}

torch::Tensor PartOf(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  const int64_t part = x.size(dim) / group.world_size();
  return x.narrow(dim, group.rank() * part, part).contiguous();
}

torch::Tensor PartOfSum(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  torch::Tensor whole = x.movedim(dim, 0).contiguous();
  std::vector<int64_t> sizes = whole.sizes().vec();
  sizes[0] /= group.world_size();
  torch::Tensor part = torch::empty(sizes, whole.options());
  BackendOf(group)._reduce_scatter_base(part, whole)->wait();
  return part.movedim(0, dim).contiguous();
}

torch::Tensor Exchanged(const torch::Tensor& x, std::vector<int64_t> sent, std::vector<int64_t> received,
                        ProcessGroup& group) {
  torch::Tensor input = x.contiguous();
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] = 0;
  for (const int64_t rows : received) sizes[0] += rows;
  torch::Tensor output = torch::empty(sizes, input.options());
  BackendOf(group).alltoall_base(output, input, received, sent)->wait();
  return output;
}

void Send(const torch::Tensor& x, int64_t peer, int64_t tag, ProcessGroup& group) {
  std::vector<torch::Tensor> message = {x.contiguous()};
  BackendOf(group).send(message, static_cast<int>(peer), static_cast<int>(tag))->wait();
}

torch::Tensor Receive(const std::vector<int64_t>& sizes, const torch::TensorOptions& options, int64_t peer, int64_t tag,
                      ProcessGroup& group) {
  std::vector<torch::Tensor> message = {torch::empty(sizes, options)};
  BackendOf(group).recv(message, static_cast<int>(peer), static_cast<int>(tag))->wait();
  return message[0];
}

// An operation on (x, dim, group) and its mirror.
using Along = torch::Tensor (*)(const torch::Tensor&, int64_t, ProcessGroup&);

template <Along kForward, Along kBackward>
struct MirroredAlong : Function<MirroredAlong<kForward, kBackward>> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x, int64_t dim, int64_t group) {
    context->saved_data["group"] = group;
    context->saved_data["dim"] = dim;
    return kForward(x, dim, GroupOf(context));
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {kBackward(gradients[0], DimOf(context), GroupOf(context)), torch::Tensor(), torch::Tensor()};
  }
};

// A view, not the tensor itself: autograd must see another one.
torch::Tensor Same(const torch::Tensor& x, int64_t, ProcessGroup&) {
  return x.view_as(x);
}

torch::Tensor SumOf(const torch::Tensor& x, int64_t, ProcessGroup& group) {
  return Sum(x, group);
}

struct ExchangeFunction : Function<ExchangeFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x, const std::vector<int64_t>& sent,
                               const std::vector<int64_t>& received, int64_t group) {
    context->saved_data["group"] = group;
    context->saved_data["sent"] = sent;
    context->saved_data["received"] = received;
    return Exchanged(x, sent, received, GroupOf(context));
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const torch::Tensor back = Exchanged(gradients[0], context->saved_data.at("received").toIntVector(),
                                         context->saved_data.at("sent").toIntVector(), GroupOf(context));
    return {back, torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

struct SendFunction : Function<SendFunction> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x, int64_t peer, int64_t tag,
                               int64_t group) {
    context->saved_data["group"] = group;
    context->saved_data["peer"] = peer;
    context->saved_data["tag"] = tag;
    context->saved_data["sizes"] = x.sizes().vec();
    context->saved_data["like"] = x.new_empty({0});
    Send(x, peer, tag, GroupOf(context));
    return x.new_empty({0});
  }
  static variable_list backward(AutogradContext* context, const variable_list&) {
    const torch::Tensor gradient =
        Receive(context->saved_data.at("sizes").toIntVector(), context->saved_data.at("like").toTensor().options(),
                context->saved_data.at("peer").toInt(), context->saved_data.at("tag").toInt(), GroupOf(context));
    return {gradient, torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

struct ReceiveFunction : Function<ReceiveFunction> {
  // `anchor` needs a gradient, so that the result does.
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& anchor, const torch::Tensor& shape_of,
                               int64_t peer, int64_t tag, int64_t group) {
    context->saved_data["group"] = group;
    context->saved_data["peer"] = peer;
    context->saved_data["tag"] = tag;
    context->saved_data["anchor"] = anchor.sizes().vec();
    return Receive(shape_of.sizes().vec(), shape_of.options(), peer, tag, GroupOf(context));
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    Send(gradients[0], context->saved_data.at("peer").toInt(), context->saved_data.at("tag").toInt(), GroupOf(context));
    return {gradients[0].new_zeros(context->saved_data.at("anchor").toIntVector()), torch::Tensor(), torch::Tensor(),
            torch::Tensor(), torch::Tensor()};
  }
};

int64_t Wrapped(const torch::Tensor& x, int64_t dim) {
  return c10::maybe_wrap_dim(dim, x.dim());
}

}  // namespace

torch::Tensor CopyToRanks(const torch::Tensor& x, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  return MirroredAlong<Same, SumOf>::apply(x, int64_t{0}, AddressOf(group));
}

torch::Tensor ReduceFromRanks(const torch::Tensor& x, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  return MirroredAlong<SumOf, Same>::apply(x, int64_t{0}, AddressOf(group));
}

torch::Tensor GatherAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  return MirroredAlong<Concatenated, PartOfSum>::apply(x, Wrapped(x, dim), AddressOf(group));
}

torch::Tensor ScatterSumAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  CheckDivides(x, Wrapped(x, dim), group, "ScatterSumAlong");
  return MirroredAlong<PartOfSum, Concatenated>::apply(x, Wrapped(x, dim), AddressOf(group));
}

torch::Tensor SplitAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  CheckDivides(x, Wrapped(x, dim), group, "SplitAlong");
  return MirroredAlong<PartOf, Concatenated>::apply(x, Wrapped(x, dim), AddressOf(group));
}

torch::Tensor JoinAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  return MirroredAlong<Concatenated, PartOf>::apply(x, Wrapped(x, dim), AddressOf(group));
}

torch::Tensor ExchangeRows(const torch::Tensor& x, const std::vector<int64_t>& sent,
                           const std::vector<int64_t>& received, ProcessGroup& group) {
  if (group.world_size() == 1) return x;
  return ExchangeFunction::apply(x, sent, received, AddressOf(group));
}

torch::Tensor SendTo(const torch::Tensor& x, int peer, int tag, ProcessGroup& group) {
  return SendFunction::apply(x, int64_t{peer}, int64_t{tag}, AddressOf(group));
}

torch::Tensor ReceiveFrom(const torch::Tensor& shape_of, int peer, int tag, ProcessGroup& group) {
  const torch::Tensor anchor = torch::zeros({0}, shape_of.options()).requires_grad_();
  return ReceiveFunction::apply(anchor, shape_of.detach(), int64_t{peer}, int64_t{tag}, AddressOf(group));
}

}  // namespace athanor

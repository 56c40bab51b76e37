// Collectives through which gradients flow. Each is the forward of one and the backward of its mirror:
//
//   CopyToRanks      x, the same on all ranks              <-> the sum of the ranks' gradients
//   ReduceFromRanks  the sum of the ranks' x               <-> the gradient, the same on all ranks
//   GatherAlong      the ranks' x, concatenated along dim  <-> this rank's part of the sum of the ranks' gradients
//   ScatterSumAlong  this rank's part of the sum of x      <-> the ranks' gradients, concatenated
//   SplitAlong       this rank's part of x, same on all    <-> the ranks' gradients, concatenated
//   JoinAlong        the ranks' x, concatenated            <-> this rank's part of the gradient, the same on all ranks
//   ExchangeRows     row blocks to the ranks               <-> the gradient's row blocks back
//   SendTo           a message, met by ReceiveFrom         <-> a message back
//
//   torch::Tensor hidden = torch::gelu(torch::linear(CopyToRanks(x, group), column_shard));
//   torch::Tensor out = ReduceFromRanks(torch::linear(hidden, row_shard), group);   // a tensor-parallel block
//
// JoinAlong() is for a result that goes on alike on every rank, GatherAlong() for one that each rank goes on with in
// its
// own way. Over one rank each function gives its input back.
//
// Collective in forward and in backward: every rank of the group calls them in the same order, with parts of one size
// and dtype. Tensors are dense and on the group's device; results are contiguous. Errors are c10::Error, as of any
// operator: `dim` out of range or no multiple of the ranks, a rank that is lost. The group outlives the graph.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "athanor/parallel/process_group.h"

namespace athanor {

torch::Tensor CopyToRanks(const torch::Tensor& x, ProcessGroup& group);
torch::Tensor ReduceFromRanks(const torch::Tensor& x, ProcessGroup& group);
torch::Tensor GatherAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group);
torch::Tensor ScatterSumAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group);
torch::Tensor SplitAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group);
torch::Tensor JoinAlong(const torch::Tensor& x, int64_t dim, ProcessGroup& group);

// `sent[r]` rows (first dimension) go to rank r, `received[r]` rows come from it. Counts are those of this rank; what
// one
// sends the other must expect.
torch::Tensor ExchangeRows(const torch::Tensor& x, const std::vector<int64_t>& sent,
                           const std::vector<int64_t>& received, ProcessGroup& group);

// Sends x to a rank, and in backward receives its gradient from there. Call backward() on the result, a tensor without
// elements: it stands for what the other rank makes of x. Tags tell messages between two ranks apart.
torch::Tensor SendTo(const torch::Tensor& x, int peer, int tag, ProcessGroup& group);
// Receives a tensor like `shape_of` (its values do not count), and sends its gradient back in backward.
torch::Tensor ReceiveFrom(const torch::Tensor& shape_of, int peer, int tag, ProcessGroup& group);

}  // namespace athanor

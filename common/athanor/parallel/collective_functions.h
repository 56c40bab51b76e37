// Collectives through which gradients flow. Each is the forward of one and the backward of its mirror:
//
//   | function        | forward                              | backward                            | the input is         |
//   |-----------------|--------------------------------------|-------------------------------------|----------------------|
//   | CopyToRanks     | x                                    | sum of the ranks' gradients         | the same on all      |
//   | ReduceFromRanks | sum of the ranks' x                  | the gradient, the same on all       | a summand            |
//   | GatherAlong     | the ranks' x, concatenated along dim | sum of the ranks' gradients, a part | a part               |
//   | ScatterSumAlong | sum of the ranks' x, a part of it    | the ranks' gradients, concatenated  | a summand            |
//   | SplitAlong      | this rank's part of x                | the ranks' gradients, concatenated  | the same on all      |
//   | JoinAlong       | the ranks' x, concatenated along dim | this rank's part of the gradient    | a part               |
//   | ExchangeRows    | row blocks to the ranks, and back    | the same the other way round        | anything             |
//   | SendTo, ReceiveFrom | a message                        | a message back                      |                      |
//
//   torch::Tensor hidden = torch::gelu(torch::linear(CopyToRanks(x, group), column_shard));
//   torch::Tensor out = ReduceFromRanks(torch::linear(hidden, row_shard), group);   // a tensor-parallel block
//
// JoinAlong() is for a result that goes on alike on every rank, GatherAlong() for one that each rank goes on with in its
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

// `sent[r]` rows (first dimension) go to rank r, `received[r]` rows come from it. Counts are those of this rank; what one
// sends the other must expect.
torch::Tensor ExchangeRows(const torch::Tensor& x, const std::vector<int64_t>& sent,
                           const std::vector<int64_t>& received, ProcessGroup& group);

// Sends x to a rank, and in backward receives its gradient from there. Call backward() on the result, a tensor without
// elements: it stands for what the other rank makes of x. Tags tell messages between two ranks apart.
torch::Tensor SendTo(const torch::Tensor& x, int peer, int tag, ProcessGroup& group);
// Receives a tensor like `shape_of` (its values do not count), and sends its gradient back in backward.
torch::Tensor ReceiveFrom(const torch::Tensor& shape_of, int peer, int tag, ProcessGroup& group);

}  // namespace athanor

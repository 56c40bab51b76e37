// One item of an index: x.Index({Slice(), 0}) is x[:, 0] of the reference.
//
//   {}                        itself
//   {2}                       element 2 (dense)
//   {Slice(1, 3)}             a part of the batch; so do a list of positions, a list of flags (one for each element)
//                             and a dense tensor of rank 1 of either kind
//   {first, rest…}            `first` selects from the batch, `rest` is applied to each selected element: -1 is each
//                             element's last entry, a position beyond an element's end is an IndexError
//   {"...", rest…}            Ellipsis stands for all dims in between
//   {tensor, rest…}           a dense tensor before other items indexes the padded view
//   {mask}                    a nested or dense bool mask of the full shape selects within each element
//
// The first item always means the batch, whatever batch_first says. Results: dense for one element, else nested.
// Assign takes the same forms: one element (a tensor of its rank; its sizes may change), several (as many values), or
// positions inside of elements; the values are packed anew where sizes change. A mask takes a number.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <variant>
#include <vector>

#include "athanor/nested/tensor.h"

namespace athanor {

class NestedIndex {
 public:
  using Flags = std::vector<bool>;
  using Positions = std::vector<int64_t>;
  // NOLINTBEGIN(google-explicit-constructor)
  NestedIndex(int position) : item_(int64_t{position}) {}
  NestedIndex(int64_t position) : item_(position) {}
  NestedIndex(torch::indexing::Slice slice) : item_(std::move(slice)) {}
  NestedIndex(torch::indexing::EllipsisIndexType) : item_(Ellipsis{}) {}
  NestedIndex(const char* dots);                    // "..." only, else c10::IndexError
  NestedIndex(std::nullopt_t) : item_(NewDim{}) {}  // a new dim, not before the batch
  NestedIndex(Positions positions) : item_(std::move(positions)) {}
  NestedIndex(Flags flags) : item_(std::move(flags)) {}
  NestedIndex(torch::Tensor tensor) : item_(std::move(tensor)) {}
  NestedIndex(NestedTensor mask) : item_(std::move(mask)) {}
  // NOLINTEND(google-explicit-constructor)

  struct Ellipsis {};
  struct NewDim {};
  using Item =
      std::variant<int64_t, torch::indexing::Slice, Ellipsis, NewDim, Positions, Flags, torch::Tensor, NestedTensor>;
  const Item& item() const { return item_; }

 private:
  Item item_;
};

namespace nested {

// The elements at these positions (negative from the end), in this order.
NestedTensor Select(const NestedTensor& x, const std::vector<int64_t>& positions);

}  // namespace nested
}  // namespace athanor

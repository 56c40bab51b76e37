// Who holds which part of which tensor, and what to copy from where to come from one such layout to another. Pure.
//
//   Layout stored, wanted;
//   stored["weight"] = {.dtype = "F32", .shape = {4, 6}, .pieces = {{WholeBox({4, 6}), 0}}};
//   wanted["weight"] = {.dtype = "F32", .shape = {4, 6}, .pieces = {{{{0, 0}, {2, 6}}, 0}, {{{2, 0}, {2, 6}}, 1}}};
//   ASSIGN_OR_RETURN(const std::vector<BoxCopy> copies, PlanCopies(stored, wanted));
//
// A holder is a number that means something to the caller: a rank, a file of a checkpoint. Replicated state is the case
// in which every holder has, or wants, the whole box.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

// A part of a tensor: where it begins and how far it reaches, by dimension; of a tensor without any, its one element.
struct Box {
  std::vector<int64_t> begin, extent;
  friend bool operator==(const Box&, const Box&) = default;
};

Box WholeBox(const std::vector<int64_t>& shape);
int64_t Elements(const Box& box);
// Whether a box has as many dimensions as the shape, begins at 0 or later and ends within. Overflows are no box.
bool IsWithin(const Box& box, const std::vector<int64_t>& shape);
// What both cover; nothing when that is no element.
std::optional<Box> Overlap(const Box& a, const Box& b);
// `box` without `hole`, which lies within it: at most two boxes per dimension, none of which overlap.
std::vector<Box> Without(const Box& box, const Box& hole);
// The elements from `begin` to before `end` of the flattened tensor (row by row) as boxes, in order: at most 2 n - 1
// for n dimensions. The range lies within the shape.
std::vector<Box> BoxesOfRange(const std::vector<int64_t>& shape, int64_t begin, int64_t end);
std::string ToString(const Box& box);  // "[0:2, 3:6]"

struct Piece {
  Box box;
  int holder = 0;
};

struct TensorLayout {
  std::string dtype;
  std::vector<int64_t> shape;  // of the whole tensor
  std::vector<Piece> pieces;   // may overlap: replicas
};

using Layout = std::map<std::string, TensorLayout>;

// Elements to copy: from a piece of the one layout to a piece of the other.
struct BoxCopy {
  std::string name;
  size_t source = 0, target = 0;  // which pieces
  Box box;                        // in the whole tensor
};

// Fills every piece of `to` from pieces of `from`, each element once: by the piece of the same holder where it has it,
// else by the others, of which different targets begin with different ones. The message of an error names the tensor.
// NOT_FOUND: `from` has none of the name. INVALID_ARGUMENT: it has another dtype or shape. DATA_LOSS: nobody holds some
// of its elements.
absl::StatusOr<std::vector<BoxCopy>> PlanCopies(const Layout& from, const Layout& to);

}  // namespace athanor

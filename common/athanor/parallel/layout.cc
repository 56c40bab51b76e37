#include "athanor/parallel/layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

absl::Status CheckSame(const std::string& name, const TensorLayout& from, const TensorLayout& to) {
  const auto text = [](const TensorLayout& layout) {
    return absl::StrCat(layout.dtype, " [", absl::StrJoin(layout.shape, ", "), "]");
  };
  if (from.dtype == to.dtype && from.shape == to.shape) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", name, "': found ", text(from), "; allowed: ", text(to), ", as it is wanted"));
}

// In the order in which a target asks them.
std::vector<size_t> SourcesFor(const std::vector<Piece>& pieces, const Piece& target) {
  std::vector<size_t> order;
  const size_t count = pieces.size();
  const size_t first = count == 0 ? 0 : static_cast<size_t>(std::max(target.holder, 0)) % count;
  for (const bool own : {true, false}) {
    for (size_t i = 0; i < count; ++i) {
      const size_t piece = (first + i) % count;
      if ((pieces[piece].holder == target.holder) == own) order.push_back(piece);
    }
  }
  return order;
}

absl::Status FillPiece(const std::string& name, const TensorLayout& from, const Piece& target, size_t index,
                       std::vector<BoxCopy>* copies) {
  std::vector<Box> open;
  if (Elements(target.box) > 0) open.push_back(target.box);
  for (const size_t source : SourcesFor(from.pieces, target)) {
    if (open.empty()) break;
    std::vector<Box> left;
    for (const Box& box : open) {
      const std::optional<Box> shared = Overlap(box, from.pieces[source].box);
      if (!shared.has_value()) {
        left.push_back(box);
        continue;
      }
      copies->push_back({name, source, index, *shared});
      for (Box& rest : Without(box, *shared)) left.push_back(std::move(rest));
    }
    open = std::move(left);
  }
  if (open.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("tensor '", name, "': nobody holds its elements ", ToString(open[0])));
}

// Below the dimensions that `prefix` fixes.
void AddBoxes(const std::vector<int64_t>& shape, const std::vector<int64_t>& prefix, int64_t begin, int64_t end,
              std::vector<Box>* boxes) {
  if (begin >= end) return;
  const size_t dim = prefix.size();
  Box box{prefix, std::vector<int64_t>(dim, 1)};
  if (dim == shape.size()) {
    boxes->push_back(std::move(box));
    return;
  }
  int64_t row = 1;
  for (size_t i = dim + 1; i < shape.size(); ++i) row *= shape[i];
  const auto within = [&](int64_t index, int64_t from, int64_t to) {
    std::vector<int64_t> deeper = prefix;
    deeper.push_back(index);
    AddBoxes(shape, deeper, from, to, boxes);
  };
  const int64_t first = (begin + row - 1) / row, last = end / row;  // whole rows
  if (first > last) return within(begin / row, begin % row, end % row);
  if (begin % row != 0) within(begin / row, begin % row, row);
  if (first < last) {
    box.begin.push_back(first);
    box.extent.push_back(last - first);
    for (size_t i = dim + 1; i < shape.size(); ++i) {
      box.begin.push_back(0);
      box.extent.push_back(shape[i]);
    }
    boxes->push_back(std::move(box));
  }
  if (end % row != 0) within(last, 0, end % row);
}

}  // namespace

std::vector<Box> BoxesOfRange(const std::vector<int64_t>& shape, int64_t begin, int64_t end) {
  std::vector<Box> boxes;
  AddBoxes(shape, {}, begin, end, &boxes);
  return boxes;
}

Box WholeBox(const std::vector<int64_t>& shape) {
  return {std::vector<int64_t>(shape.size(), 0), shape};
}

int64_t Elements(const Box& box) {
  int64_t count = 1;
  for (const int64_t extent : box.extent) count *= extent;
  return count;
}

bool IsWithin(const Box& box, const std::vector<int64_t>& shape) {
  if (box.begin.size() != shape.size() || box.extent.size() != shape.size()) return false;
  int64_t count = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (box.begin[i] < 0 || box.extent[i] < 0 || box.begin[i] > shape[i] || box.extent[i] > shape[i] - box.begin[i])
      return false;
    if (__builtin_mul_overflow(count, std::max<int64_t>(box.extent[i], 1), &count)) return false;
  }
  return true;
}

std::optional<Box> Overlap(const Box& a, const Box& b) {
  Box shared;
  for (size_t i = 0; i < a.begin.size(); ++i) {
    const int64_t begin = std::max(a.begin[i], b.begin[i]);
    const int64_t end = std::min(a.begin[i] + a.extent[i], b.begin[i] + b.extent[i]);
    if (begin >= end) return std::nullopt;
    shared.begin.push_back(begin);
    shared.extent.push_back(end - begin);
  }
  return shared;
}

std::vector<Box> Without(const Box& box, const Box& hole) {
  std::vector<Box> parts;
  Box rest = box;
  for (size_t i = 0; i < box.begin.size(); ++i) {
    const int64_t before = hole.begin[i] - rest.begin[i];
    const int64_t after = rest.begin[i] + rest.extent[i] - (hole.begin[i] + hole.extent[i]);
    if (before > 0) {
      parts.push_back(rest);
      parts.back().extent[i] = before;
    }
    if (after > 0) {
      parts.push_back(rest);
      parts.back().begin[i] = hole.begin[i] + hole.extent[i];
      parts.back().extent[i] = after;
    }
    rest.begin[i] = hole.begin[i];
    rest.extent[i] = hole.extent[i];
  }
  return parts;
}

std::string ToString(const Box& box) {
  std::vector<std::string> ranges;
  for (size_t i = 0; i < box.begin.size(); ++i)
    ranges.push_back(absl::StrCat(box.begin[i], ":", box.begin[i] + box.extent[i]));
  return absl::StrCat("[", absl::StrJoin(ranges, ", "), "]");
}

absl::StatusOr<std::vector<BoxCopy>> PlanCopies(const Layout& from, const Layout& to) {
  std::vector<BoxCopy> copies;
  for (const auto& [name, wanted] : to) {
    const auto found = from.find(name);
    if (found == from.end()) return absl::NotFoundError(absl::StrCat("tensor '", name, "' is missing"));
    RETURN_IF_ERROR(CheckSame(name, found->second, wanted));
    for (size_t i = 0; i < wanted.pieces.size(); ++i)
      RETURN_IF_ERROR(FillPiece(name, found->second, wanted.pieces[i], i, &copies));
  }
  return copies;
}

}  // namespace athanor

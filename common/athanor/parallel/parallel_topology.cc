#include "athanor/parallel/parallel_topology.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr size_t kNoAxis = ParallelTopology::kAxisCount;

size_t AxisIndex(absl::string_view axis) {
  const auto& axes = ParallelTopology::kAxes;
  return static_cast<size_t>(std::find(axes.begin(), axes.end(), axis) - axes.begin());
}

std::string Product(const std::array<int64_t, kNoAxis>& degrees) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < kNoAxis; ++i) parts.push_back(absl::StrCat(ParallelTopology::kAxes[i], "(", degrees[i], ")"));
  return absl::StrJoin(parts, " * ");
}

template <class... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("parallel.axes: ", parts...));
}

}  // namespace

absl::StatusOr<ParallelTopology> ParallelTopology::Create(int64_t world_size,
                                                          const std::map<std::string, int64_t>& axes) {
  if (world_size < 1) return Invalid("the world size is ", world_size, "; allowed: at least 1");
  ParallelTopology topology;
  topology.world_size_ = world_size;
  size_t open = kNoAxis;
  for (const auto& [name, degree] : axes) {
    const size_t axis = AxisIndex(name);
    if (axis == kNoAxis) {
      return Invalid("unknown axis ", name, "; allowed: ", absl::StrJoin(kAxes, ", "));
    }
    if (degree == 0 || degree < -1) {
      return Invalid(name, " = ", degree, "; allowed: a number >= 1, or -1 for what the other axes leave");
    }
    if (degree == -1 && open != kNoAxis) {
      return Invalid("found -1 for ", kAxes[open], " and ", name, "; allowed: one axis of -1");
    }
    if (degree == -1) open = axis;
    topology.degrees_[axis] = degree;
  }
  int64_t known = 1;
  for (size_t i = 0; i < kAxisCount; ++i) {
    if (i == open) continue;
    if (known > std::numeric_limits<int64_t>::max() / topology.degrees_[i]) {
      return Invalid("the product ", Product(topology.degrees_), " is beyond all numbers of ranks");
    }
    known *= topology.degrees_[i];
  }
  if (open != kNoAxis) {
    if (world_size % known != 0) {
      return Invalid("the world size ", world_size, " must be divisible by the known axes ", Product(topology.degrees_),
                     " = ", known);
    }
    topology.degrees_[open] = world_size / known;
  } else if (known != world_size) {
    return Invalid("the world size ", world_size, " must equal ", Product(topology.degrees_), " = ", known);
  }
  int64_t stride = 1;
  for (size_t i = kAxisCount; i-- > 0;) {
    topology.strides_[i] = stride;
    stride *= topology.degrees_[i];
  }
  return topology;
}

absl::StatusOr<ParallelTopology> ParallelTopology::Create(int world_size, int rank, int local_rank) {
  if (world_size < 1) {
    return absl::InvalidArgumentError(absl::StrCat("topology: world_size is ", world_size, ", must be at least 1"));
  }
  if (rank < 0 || rank >= world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("topology: rank is ", rank, ", must be in 0 .. ", world_size - 1, " (world_size - 1)"));
  }
  if (local_rank < 0 || local_rank >= world_size) {
    return absl::InvalidArgumentError(absl::StrCat("topology: local_rank is ", local_rank, ", must be in 0 .. ",
                                                   world_size - 1, " (world_size - 1)"));
  }
  ASSIGN_OR_RETURN(ParallelTopology topology, Create(world_size, {{"replicate", world_size}}));
  topology.rank_ = rank;
  topology.local_rank_ = local_rank;
  return topology;
}

absl::StatusOr<ParallelTopology> ParallelTopology::WithAxes(const std::map<std::string, int64_t>& axes) const {
  ASSIGN_OR_RETURN(ParallelTopology topology, Create(world_size_, axes));
  topology.rank_ = rank_;
  topology.local_rank_ = local_rank_;
  return topology;
}

int64_t ParallelTopology::degree(absl::string_view axis) const {
  const size_t index = AxisIndex(axis);
  return index == kNoAxis ? 1 : degrees_[index];
}

std::map<std::string, int64_t> ParallelTopology::Coordinates(int64_t rank) const {
  std::map<std::string, int64_t> coordinates;
  for (size_t i = 0; i < kAxisCount; ++i) coordinates[std::string(kAxes[i])] = Position(i, rank);
  return coordinates;
}

absl::StatusOr<int64_t> ParallelTopology::RankAt(const std::map<std::string, int64_t>& coordinates,
                                                 int64_t from) const {
  int64_t rank = from;
  for (const auto& [name, position] : coordinates) {
    const size_t axis = AxisIndex(name);
    if (axis == kNoAxis) return Invalid("unknown axis ", name, "; allowed: ", absl::StrJoin(kAxes, ", "));
    if (position < 0 || position >= degrees_[axis]) {
      return Invalid(name, " coordinate ", position, "; allowed: 0 to ", degrees_[axis] - 1);
    }
    rank += (position - Position(axis, from)) * strides_[axis];
  }
  return rank;
}

std::vector<std::string> ParallelTopology::Domains() {
  return {"data", "batch", "loss", "optimizer", "fsdp", "context", "pipeline", "tensor", "expert", "expert_tensor"};
}

std::vector<std::string> ParallelTopology::DomainAxes(absl::string_view domain) {
  if (domain == "data" || domain == "batch") return {"replicate", "shard"};
  if (domain == "loss" || domain == "fsdp") return {"replicate", "shard", "context"};
  if (domain == "optimizer") return {kAxes.begin(), kAxes.end()};
  if (AxisIndex(domain) != kNoAxis) return {std::string(domain)};
  return {};
}

int64_t ParallelTopology::DomainDegree(absl::string_view domain) const {
  int64_t degree = 1;
  for (const std::string& axis : DomainAxes(domain)) degree *= degrees_[AxisIndex(axis)];
  return degree;
}

int64_t ParallelTopology::DomainRank(absl::string_view domain, int64_t rank) const {
  int64_t place = 0;
  for (const std::string& axis : DomainAxes(domain)) {
    const size_t index = AxisIndex(axis);
    place = place * degrees_[index] + Position(index, rank);
  }
  return place;
}

std::vector<int64_t> ParallelTopology::DomainMembers(absl::string_view domain, int64_t rank) const {
  std::vector<int64_t> members = {rank};
  for (const std::string& axis : DomainAxes(domain)) {
    const size_t index = AxisIndex(axis);
    std::vector<int64_t> wider;
    for (const int64_t member : members) {
      for (int64_t position = 0; position < degrees_[index]; ++position) {
        wider.push_back(member + (position - Position(index, member)) * strides_[index]);
      }
    }
    members = std::move(wider);
  }
  return members;
}

}  // namespace athanor

// How the ranks of a job are laid out over the axes of parallelism, which ranks reduce what together, and where this
// rank stands among them.
//
//   ASSIGN_OR_RETURN(auto topology, ParallelTopology::Create(/*world_size=*/8, {{"replicate", -1}, {"tensor", 4}}));
//   topology.degree("replicate");                        // 2: the -1 takes what the others leave
//   topology.Coordinates(5).at("tensor");                // 1
//   topology.DomainRank("data", 5);                      // 1: which share of the data rank 5 reads
//   ASSIGN_OR_RETURN(topology, ParallelTopology::Create(/*world_size=*/4, /*rank=*/1, /*local_rank=*/1));
//   topology.data_parallel_rank();                       // 1: every rank is one replica
//
// Axes in order: replicate, shard, context, pipeline, tensor, expert, expert_tensor; row-major, the last axis fastest.
// Domains are the groups that reduce together: data = batch = (replicate, shard); loss = fsdp = (replicate, shard,
// context); optimizer = all axes; and one domain per axis but replicate and shard. A plain value; thread-safe for
// reads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace athanor {

class ParallelTopology {
 public:
  static constexpr size_t kAxisCount = 7;
  static constexpr std::array<absl::string_view, kAxisCount> kAxes = {"replicate", "shard",  "context",      "pipeline",
                                                                      "tensor",    "expert", "expert_tensor"};

  // Axes that are not named have degree 1; at most one may be -1. INVALID_ARGUMENT, with the product of the axes:
  // unknown axis, a degree of 0 or below -1, two -1, a product that is not the world size or does not divide it.
  static absl::StatusOr<ParallelTopology> Create(int64_t world_size, const std::map<std::string, int64_t>& axes);
  // This rank's: data parallelism alone. INVALID_ARGUMENT unless 1 <= world_size, 0 <= rank < world_size and
  // 0 <= local_rank < world_size.
  static absl::StatusOr<ParallelTopology> Create(int world_size, int rank, int local_rank);
  // The same ranks, and this rank among them, over other axes. INVALID_ARGUMENT as the first.
  absl::StatusOr<ParallelTopology> WithAxes(const std::map<std::string, int64_t>& axes) const;

  int world_size() const { return static_cast<int>(world_size_); }
  int rank() const { return rank_; }
  int local_rank() const { return local_rank_; }  // among the ranks of this machine: picks the device
  bool is_main() const { return rank_ == 0; }
  int data_parallel_size() const { return static_cast<int>(DomainDegree("data")); }
  int data_parallel_rank() const { return static_cast<int>(DomainRank("data", rank_)); }
  const std::array<int64_t, kAxisCount>& degrees() const { return degrees_; }
  int64_t degree(absl::string_view axis) const;  // 1 for an unknown axis

  // Position on every axis. `rank` in [0, world_size).
  std::map<std::string, int64_t> Coordinates(int64_t rank) const;
  // The rank at these coordinates; axes that are not named count as those of `from`. INVALID_ARGUMENT names a
  // coordinate outside of its axis.
  absl::StatusOr<int64_t> RankAt(const std::map<std::string, int64_t>& coordinates, int64_t from = 0) const;

  static std::vector<std::string> Domains();
  static std::vector<std::string> DomainAxes(absl::string_view domain);  // empty: unknown
  int64_t DomainDegree(absl::string_view domain) const;                  // product of its axes' degrees
  int64_t DomainRank(absl::string_view domain, int64_t rank) const;      // mixed radix in the order of its axes
  // All ranks that reduce together with `rank` over the domain, ascending by domain rank.
  std::vector<int64_t> DomainMembers(absl::string_view domain, int64_t rank) const;

 private:
  int64_t Position(size_t axis, int64_t rank) const { return rank / strides_[axis] % degrees_[axis]; }

  int64_t world_size_ = 1;
  int rank_ = 0, local_rank_ = 0;
  std::array<int64_t, kAxisCount> degrees_{1, 1, 1, 1, 1, 1, 1};
  std::array<int64_t, kAxisCount> strides_{1, 1, 1, 1, 1, 1, 1};
};

}  // namespace athanor

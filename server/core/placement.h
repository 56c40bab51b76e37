// Where a gang of ranks goes. Pure: all ranks or none, every answer with its reason.
//
// Order: priority, then age. The first job that cannot be placed blocks younger and lower ones of the same device kind
// (so none starves), unless it could not be placed even on an empty cluster: then it waits aside and says so. Placement
// packs: the one worker that fits most tightly, else the emptiest workers first, so that few machines are used.
#pragma once

#include <string>
#include <vector>

#include "server/core/cluster_state.h"

namespace athanor::core {

struct FreeSlots {
  WorkerId worker;
  std::string device;
  std::vector<int32_t> slots;  // ascending
};

struct PlacementRequest {
  int32_t ranks = 1;
  int32_t slots_per_rank = 1;
  std::string device = "cpu";
};

struct PlacementResult {
  bool placed = false;
  std::vector<Placement> placement;  // by rank
  std::string reason;
};

PlacementResult Place(const PlacementRequest& request, const std::vector<FreeSlots>& free);

// Slots of workers that take new ranks (Ready). With `ignore_used`, as if the cluster were empty.
std::vector<FreeSlots> CollectFreeSlots(const ClusterState& state, bool ignore_used = false);

}  // namespace athanor::core

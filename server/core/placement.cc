#include "server/core/placement.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace athanor::core {
namespace {

int32_t Seats(const FreeSlots& free, const PlacementRequest& request) {
  if (free.device != request.device) return 0;
  return static_cast<int32_t>(free.slots.size()) / request.slots_per_rank;
}

void Seat(const FreeSlots& free, const PlacementRequest& request, int32_t count, std::vector<Placement>& placement) {
  for (int32_t i = 0; i < count; ++i) {
    const auto begin = free.slots.begin() + static_cast<ptrdiff_t>(i) * request.slots_per_rank;
    placement.push_back({static_cast<Rank>(placement.size()), free.worker, {begin, begin + request.slots_per_rank}});
  }
}

}  // namespace

PlacementResult Place(const PlacementRequest& request, const std::vector<FreeSlots>& free) {
  PlacementResult result;
  std::vector<const FreeSlots*> usable;
  int32_t seats = 0;
  const FreeSlots* tightest = nullptr;
  for (const FreeSlots& worker : free) {
    const int32_t here = Seats(worker, request);
    if (here == 0) continue;
    usable.push_back(&worker);
    seats += here;
    if (here >= request.ranks && (tightest == nullptr || worker.slots.size() < tightest->slots.size()))
      tightest = &worker;
  }
  if (seats < request.ranks) {
    result.reason = absl::StrCat("needs ", request.ranks, " x ", request.slots_per_rank, " ", request.device,
                                 " slots at once, room for ", seats, " ranks is free");
    return result;
  }
  result.placed = true;
  if (tightest != nullptr) {
    Seat(*tightest, request, request.ranks, result.placement);
    result.reason = absl::StrCat("all ranks on ", tightest->worker.str(), ", the tightest fit");
    return result;
  }
  std::sort(usable.begin(), usable.end(), [&](const FreeSlots* a, const FreeSlots* b) {
    const int32_t of_a = Seats(*a, request), of_b = Seats(*b, request);
    return of_a != of_b ? of_a > of_b : a < b;  // they point into one vector: equal ones keep their order
  });
  int32_t left = request.ranks;
  int32_t workers = 0;
  for (const FreeSlots* worker : usable) {
    const int32_t count = std::min(left, Seats(*worker, request));
    Seat(*worker, request, count, result.placement);
    left -= count;
    ++workers;
    if (left == 0) break;
  }
  result.reason = absl::StrCat(request.ranks, " ranks over ", workers, " workers, emptiest first");
  return result;
}

std::vector<FreeSlots> CollectFreeSlots(const ClusterState& state, bool ignore_used) {
  std::vector<FreeSlots> free;
  for (const auto& [id, worker] : state.workers) {
    if (worker.state != WorkerState::kReady) continue;
    FreeSlots slots{id, worker.device, {}};
    for (int32_t slot = 0; slot < worker.slots; ++slot) {
      if (ignore_used || !worker.used.contains(slot)) slots.slots.push_back(slot);
    }
    if (!slots.slots.empty()) free.push_back(std::move(slots));
  }
  return free;
}

}  // namespace athanor::core

// When a generation that does not advance counts as hung, and which of its ranks the others wait for.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/core/duration_text.h"
#include "server/core/machine.h"

namespace athanor::core {
namespace {

constexpr size_t kStacks = 8;  // of as many ranks

bool IsSlowPhase(const std::string& phase) {
  return phase == "evaluating" || phase == "saving" || phase == "restoring" || phase == "finishing";
}

bool Works(const RankEntry& rank) {
  return rank.state != RankState::kExited && rank.state != RankState::kFinished;
}

// The ranks that hold the others up, and how that is known. All of them when nothing tells them apart.
struct Late {
  std::vector<const RankEntry*> ranks;
  std::string why;
  bool told = true;  // something tells them from the others
};

template <typename Value>
std::vector<const RankEntry*> Fewest(const std::vector<const RankEntry*>& ranks, Value value) {
  int64_t fewest = std::numeric_limits<int64_t>::max();
  for (const RankEntry* rank : ranks) fewest = std::min<int64_t>(fewest, value(rank->progress));
  std::vector<const RankEntry*> found;
  for (const RankEntry* rank : ranks) {
    if (value(rank->progress) == fewest) found.push_back(rank);
  }
  return found;
}

// A rank that fell silent first; then who has come to the fewest exchanges: the others are there and wait; then who has
// made the fewest steps.
Late FindLate(const std::vector<const RankEntry*>& ranks, absl::Time now, absl::Duration limit) {
  std::vector<const RankEntry*> silent;
  for (const RankEntry* rank : ranks) {
    if (now - rank->progress.updated_at > limit / 2) silent.push_back(rank);
  }
  if (!silent.empty() && (silent.size() < ranks.size() || ranks.size() == 1)) {
    absl::Time oldest = absl::InfiniteFuture();
    for (const RankEntry* rank : silent) oldest = std::min(oldest, rank->progress.updated_at);
    std::erase_if(silent, [oldest](const RankEntry* rank) { return rank->progress.updated_at != oldest; });
    return {silent, absl::StrCat("not heard for ", DurationText(now - oldest))};
  }
  if (ranks.size() == 1) return {ranks, ""};
  std::vector<const RankEntry*> late = Fewest(ranks, [](const RankProgress& one) { return one.exchanges; });
  if (late.size() < ranks.size()) {
    return {late, absl::StrCat("did not come to exchange ", late[0]->progress.exchanges + 1, ", where ",
                               ranks.size() - late.size(), " of ", ranks.size(), " ranks wait")};
  }
  late = Fewest(ranks, [](const RankProgress& one) { return one.step; });
  if (late.size() < ranks.size()) return {late, "furthest behind"};
  return {ranks, "no rank is behind the others", /*told=*/false};
}

std::string Places(const std::vector<const RankEntry*>& ranks) {
  constexpr size_t kShown = 8;
  std::vector<std::string> places;
  for (const RankEntry* rank : ranks) {
    if (places.size() == kShown) break;
    places.push_back(absl::StrCat(rank->placement.rank, " on ", rank->placement.worker.str()));
  }
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(places, ", "),
                      ranks.size() > kShown ? ", …" : "");
}

}  // namespace

absl::Duration Machine::HangLimit(const GenerationEntry& generation, const JobEntry& job) const {
  double step_seconds = 0;
  bool stepped = false;
  bool slow = false;
  for (const RankEntry& rank : generation.ranks) {
    step_seconds = std::max(step_seconds, rank.progress.step_seconds);
    stepped = stepped || rank.progress.step > std::max<core::Step>(0, rank.progress.resumed_from_step);
    slow = slow || IsSlowPhase(rank.progress.phase);
  }
  if (!stepped) return std::max(job.spec.timeouts.startup, job.spec.timeouts.hang);
  absl::Duration limit = std::max(job.spec.timeouts.hang, absl::Seconds(options.hang_factor * step_seconds));
  return slow ? limit * options.slow_phase_factor : limit;
}

void Machine::CheckHang(GenerationEntry& generation) {
  if (generation.state != GenerationState::kTraining) return;
  const JobEntry& job = state.jobs.at(generation.job);
  const absl::Duration limit = HangLimit(generation, job);
  const HangTimer timer{generation.job, generation.number};
  // Ranks that we cannot hear are not known to stand still; their agent's lease decides first.
  const bool unheard = std::any_of(generation.ranks.begin(), generation.ranks.end(), [this](const RankEntry& rank) {
    return rank.state != RankState::kExited && !InContact(rank.placement.worker);
  });
  if (unheard) return timers_.Set(timer, now_ + std::min(limit, options.lease / 2));
  absl::Time newest = absl::InfinitePast();
  std::vector<const RankEntry*> working;
  for (const RankEntry& rank : generation.ranks) {
    if (!Works(rank)) continue;
    newest = std::max(newest, rank.progress.advanced_at);
    working.push_back(&rank);
  }
  if (working.empty()) return timers_.Set(timer, now_ + limit);
  if (newest + limit > now_) return timers_.Set(timer, newest + limit);
  const Late late = FindLate(working, now_, limit);
  const RankProgress& progress = late.ranks[0]->progress;
  FailureCause cause{.kind = CauseKind::kHang};
  cause.detail = absl::StrCat("no rank advanced for ", DurationText(now_ - newest), " (limit ", DurationText(limit),
                              "): ", Places(late.ranks), late.why.empty() ? "" : ", ", late.why, ", at step ",
                              progress.step, " while ", progress.phase);
  if (late.told) {
    cause.rank = late.ranks[0]->placement.rank;
    cause.worker = late.ranks[0]->placement.worker;
  }
  std::set<Rank> stacks;
  for (const RankEntry* rank : late.ranks) {
    if (stacks.size() < kStacks) stacks.insert(rank->placement.rank);
  }
  FailGeneration(generation, std::move(cause), stacks);
  MaybeEndGeneration(generation);
}

void Machine::Handle(const RankStacks& event) {
  const GenerationEntry* generation = FindGeneration(event.id.job, event.id.generation);
  const bool known = generation != nullptr && event.id.rank >= 0 &&
                     event.id.rank < static_cast<Rank>(generation->ranks.size()) &&
                     generation->ranks[event.id.rank].placement.worker == event.worker;
  if (!known) return Fence(0, event.id, event.worker, "stacks");
  AddEvent(state.jobs.at(event.id.job), "StackDump", event.text, event.id.generation, event.id.rank);
}

}  // namespace athanor::core

#include "tests/sim/sim_world.h"

namespace athanor::sim {

uint64_t Random::Next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

absl::Duration Random::Duration(absl::Duration low, absl::Duration high) {
  const int64_t span = absl::ToInt64Microseconds(high - low);
  return low + absl::Microseconds(static_cast<int64_t>(Next() % static_cast<uint64_t>(span + 1)));
}

bool World::RunNext(absl::Time until) {
  if (failed() || agenda_.empty() || agenda_.begin()->first.first > until) return false;
  auto entry = agenda_.extract(agenda_.begin());
  now = std::max(now, entry.key().first);
  entry.mapped()();
  return true;
}

void World::Fail(const std::string& what) {
  if (failed()) return;
  failure_ = what;
  Trace("BREACH ", what);
}

void World::AddTrace(std::string line) {
  constexpr size_t kKept = 200;
  trace_.push_back(absl::StrCat(absl::ToDoubleSeconds(now - absl::FromUnixSeconds(1'000'000)), " ", line));
  if (trace_.size() > kKept) trace_.pop_front();
}

std::string Name(const core::RankRef& id) {
  return absl::StrCat(id.job.str(), "/", id.generation, "#", id.rank);
}

}  // namespace athanor::sim

// (job, generation, rank) as a map key.
#pragma once

#include <compare>
#include <string>

#include "absl/strings/str_cat.h"
#include "athanor/v1/agent_service.pb.h"

namespace athanor::agent {

struct RankKey {
  std::string job;
  int32_t generation = 0;
  int32_t rank = 0;
  friend auto operator<=>(const RankKey&, const RankKey&) = default;
};

inline RankKey KeyOf(const v1::RankId& id) {
  return {id.job(), id.generation(), id.rank()};
}
inline v1::RankId IdOf(const RankKey& key) {
  v1::RankId id;
  id.set_job(key.job);
  id.set_generation(key.generation);
  id.set_rank(key.rank);
  return id;
}
inline std::string Show(const RankKey& key) {
  return absl::StrCat(key.job, "/", key.generation, "/", key.rank);
}

}  // namespace athanor::agent

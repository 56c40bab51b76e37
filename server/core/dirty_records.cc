#include "server/core/dirty_records.h"

namespace athanor::core {
namespace {

// The entry under two keys; nullptr when it has gone.
template <typename Entries, typename Key>
const typename Entries::mapped_type::mapped_type* Find(const Entries& entries, const JobId& job, const Key& key) {
  const auto of_job = entries.find(job);
  if (of_job == entries.end()) return nullptr;
  const auto it = of_job->second.find(key);
  return it == of_job->second.end() ? nullptr : &it->second;
}

}  // namespace

void DirtyRecords::Flush(ClusterState& state, std::vector<Effect>& effects) {
  for (const JobId& id : jobs_) {
    const auto it = state.jobs.find(id);
    if (it == state.jobs.end()) continue;
    ++it->second.version;
    effects.push_back(PutRecord{it->second});
    effects.push_back(Touched{id, {}});
  }
  const auto put = [&](const JobId& job, const auto* entry) {
    if (entry == nullptr) return;
    effects.push_back(PutRecord{*entry});
    if (!jobs_.contains(job)) effects.push_back(Touched{job, {}});
  };
  for (const auto& [job, number] : generations_) put(job, Find(state.generations, job, number));
  for (const auto& [job, step] : checkpoints_) put(job, Find(state.checkpoints, job, step));
  for (const WorkerId& id : workers_) {
    const auto it = state.workers.find(id);
    if (it == state.workers.end()) continue;
    effects.push_back(PutRecord{it->second});
    effects.push_back(Touched{{}, id});
  }
  *this = {};
}

}  // namespace athanor::core

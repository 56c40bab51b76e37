// The coordinator's disk: records survive a crash, everything else of the state does not.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "server/core/effect.h"

namespace athanor::sim {

class SimStore {
 public:
  // Applies the records among `effects`, as one synced commit.
  void Commit(const std::vector<core::Effect>& effects);
  // What a coordinator that starts now reads.
  core::ClusterState Load() const { return durable_; }
  const core::ClusterState& durable() const { return durable_; }
  // An older copy takes the place of the records.
  struct Copy {
    core::ClusterState records;
    std::map<core::JobId, std::set<int64_t>> events;
  };
  Copy BackUp() const { return {durable_, events_}; }
  void Restore(Copy copy) {
    durable_ = std::move(copy.records);
    events_ = std::move(copy.events);
  }
  // Sequences of the stored events of a job.
  const std::set<int64_t>& Events(const core::JobId& job) const;
  // The first difference between the stored members of `state` and the records; empty when equal. Catches a change that
  // was made but never written.
  std::string Difference(const core::ClusterState& state) const;

 private:
  void Put(const core::JobEntry& job) { durable_.jobs[job.id] = job; }
  void Put(core::GenerationEntry generation);
  void Put(core::CheckpointEntry checkpoint);
  void Put(core::WorkerEntry worker);
  void Put(const core::JobEventEntry& event) { events_[event.job].insert(event.sequence); }
  void Put(const core::RequestEntry& request) { durable_.requests[request.key] = request; }
  void Delete(const core::DeleteRecord& deletion);

  core::ClusterState durable_;
  std::map<core::JobId, std::set<int64_t>> events_;
};

}  // namespace athanor::sim

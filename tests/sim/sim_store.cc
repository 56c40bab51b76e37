#include "tests/sim/sim_store.h"

#include "absl/strings/str_cat.h"

namespace athanor::sim {
namespace {

using core::ClusterState;

std::string CompareJobs(const ClusterState& a, const ClusterState& b) {
  if (a.jobs.size() != b.jobs.size()) return absl::StrCat(a.jobs.size(), " jobs, ", b.jobs.size(), " stored");
  for (const auto& [id, job] : a.jobs) {
    auto it = b.jobs.find(id);
    if (it == b.jobs.end()) return absl::StrCat(id.str(), " is not stored");
    const core::JobEntry& stored = it->second;
    const bool same = job.state == stored.state && job.reason == stored.reason && job.generation == stored.generation &&
                      job.aliases == stored.aliases && job.restarts_by_cause == stored.restarts_by_cause &&
                      job.retry_at == stored.retry_at && job.next_event == stored.next_event &&
                      job.version == stored.version && job.ended_at == stored.ended_at &&
                      job.queued_at == stored.queued_at;
    if (!same)
      return absl::StrCat("job ", id.str(), " (", ToString(job.state), ", stored ", ToString(stored.state), ")");
  }
  return "";
}

bool SameRank(const core::RankEntry& a, const core::RankEntry& b) {
  return a.placement == b.placement && a.state == b.state && a.said_finish == b.said_finish && a.endpoint == b.endpoint;
}

bool SameGeneration(const core::GenerationEntry& a, const core::GenerationEntry& b) {
  if (a.state != b.state || a.ranks.size() != b.ranks.size() || a.cause.has_value() != b.cause.has_value())
    return false;
  for (size_t i = 0; i < a.ranks.size(); ++i) {
    if (!SameRank(a.ranks[i], b.ranks[i])) return false;
  }
  return a.stop_for_cancel == b.stop_for_cancel && a.stop_for_suspend == b.stop_for_suspend &&
         a.stop_for_preempt == b.stop_for_preempt && a.resume_step == b.resume_step && a.ended_at == b.ended_at &&
         a.training_at == b.training_at && a.reason == b.reason &&
         (!a.cause.has_value() || a.cause->kind == b.cause->kind);
}

bool SameCheckpoint(const core::CheckpointEntry& a, const core::CheckpointEntry& b) {
  return a.state == b.state && a.generation == b.generation && a.shards == b.shards && a.is_best == b.is_best &&
         a.note == b.note && a.bytes == b.bytes;
}

// `same` over every (job, number) of two maps of maps; an empty inner map equals none.
template <typename Outer, typename Same>
std::string CompareNested(const char* what, const Outer& a, const Outer& b, Same same) {
  size_t count = 0, stored = 0;
  for (const auto& [job, inner] : b) stored += inner.size();
  for (const auto& [job, inner] : a) {
    count += inner.size();
    auto it = b.find(job);
    for (const auto& [number, entry] : inner) {
      if (it == b.end() || !it->second.contains(number)) {
        return absl::StrCat(what, " ", number, " of ", job.str(), " is not stored");
      }
      if (!same(entry, it->second.at(number))) {
        return absl::StrCat(what, " ", number, " of ", job.str(), " (", ToString(entry.state), ", stored ",
                            ToString(it->second.at(number).state), ")");
      }
    }
  }
  return count == stored ? "" : absl::StrCat(count, " x ", what, ", ", stored, " stored");
}

std::string CompareWorkers(const ClusterState& a, const ClusterState& b) {
  if (a.workers.size() != b.workers.size()) return "number of workers";
  for (const auto& [id, worker] : a.workers) {
    const core::WorkerEntry& stored = b.workers.at(id);
    if (worker.state != stored.state || worker.incarnation != stored.incarnation ||
        worker.instance != stored.instance || worker.drain != stored.drain || worker.slots != stored.slots) {
      return absl::StrCat("worker ", id.str(), " (", ToString(worker.state), ", stored ", ToString(stored.state), ")");
    }
  }
  return "";
}

}  // namespace

void SimStore::Commit(const std::vector<core::Effect>& effects) {
  for (const core::Effect& effect : effects) {
    if (const auto* put = std::get_if<core::PutRecord>(&effect)) {
      std::visit([this](const auto& record) { Put(record); }, put->record);
    } else if (const auto* deletion = std::get_if<core::DeleteRecord>(&effect)) {
      Delete(*deletion);
    }
  }
}

void SimStore::Put(core::GenerationEntry generation) {
  for (core::RankEntry& rank : generation.ranks) {
    rank.join_call = 0;
    rank.progress = {};
    rank.progress.rank = rank.placement.rank;
  }
  durable_.generations[generation.job][generation.number] = std::move(generation);
}

void SimStore::Put(core::CheckpointEntry checkpoint) {
  checkpoint.shard_calls.clear();
  durable_.checkpoints[checkpoint.job][checkpoint.step] = std::move(checkpoint);
}

void SimStore::Put(core::WorkerEntry worker) {
  worker.session = 0;
  worker.lease_until = worker.last_heartbeat = absl::InfinitePast();
  worker.used.clear();
  durable_.workers[worker.id] = std::move(worker);
}

void SimStore::Delete(const core::DeleteRecord& deletion) {
  using Kind = core::DeleteRecord::Kind;
  switch (deletion.kind) {
    case Kind::kJob:
      durable_.jobs.erase(deletion.job);
      return;
    case Kind::kGeneration:
      durable_.generations[deletion.job].erase(static_cast<core::Generation>(deletion.number));
      return;
    case Kind::kCheckpoint:
      durable_.checkpoints[deletion.job].erase(deletion.number);
      return;
    case Kind::kWorker:
      durable_.workers.erase(core::WorkerId(deletion.key));
      return;
    case Kind::kEvent:
      events_[deletion.job].erase(deletion.number);
      if (events_[deletion.job].empty()) events_.erase(deletion.job);
      return;
    case Kind::kRequest:
      durable_.requests.erase(deletion.key);
      return;
  }
}

const std::set<int64_t>& SimStore::Events(const core::JobId& job) const {
  static const std::set<int64_t> kNone;
  auto it = events_.find(job);
  return it == events_.end() ? kNone : it->second;
}

std::string SimStore::Difference(const core::ClusterState& state) const {
  if (std::string jobs = CompareJobs(state, durable_); !jobs.empty()) return jobs;
  if (std::string found = CompareNested("generation", state.generations, durable_.generations, SameGeneration);
      !found.empty()) {
    return found;
  }
  if (std::string found = CompareNested("checkpoint", state.checkpoints, durable_.checkpoints, SameCheckpoint);
      !found.empty()) {
    return found;
  }
  if (state.requests.size() != durable_.requests.size()) return "number of request keys";
  for (const auto& [job, events] : events_) {
    if (!state.jobs.contains(job)) return absl::StrCat("events of ", job.str(), ", which is gone, are still stored");
  }
  return CompareWorkers(state, durable_);
}

}  // namespace athanor::sim

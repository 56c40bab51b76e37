#include "tests/sim/sim_rank.h"

#include <algorithm>
#include <filesystem>

#include "server/convert/proto_convert.h"
#include "tests/sim/sim_agent.h"

namespace athanor::sim {
namespace {

using core::CauseKind;
using core::FailureCause;

FailureCause RandomCause(Random& random) {
  constexpr CauseKind kKinds[] = {CauseKind::kSignal,   CauseKind::kSignal, CauseKind::kSignal,
                                  CauseKind::kUserCode, CauseKind::kData,   CauseKind::kOutOfMemory,
                                  CauseKind::kNanLoss,  CauseKind::kOurBug};
  FailureCause cause{.kind = kKinds[random.Below(8)], .detail = "simulated"};
  cause.retryable = !random.Chance(0.05);
  return cause;
}

}  // namespace

void Training::Launch(SimRank& rank) {
  rank.process = next_process_++;
  rank.progress.rank = rank.id.rank;
  live_[rank.id] = &rank;
  world_.processes[rank.id] = rank.agent->id();
  Gang& gang = gangs_[{rank.id.job, rank.id.generation}];
  gang.ranks[rank.id.rank] = &rank;
  gang.world_size = rank.world_size;
  world_.Trace("launch ", Name(rank.id), " on ", rank.agent->id().str());
  core::Generation& fence = world_.fences[rank.id.job];
  fence = std::max(fence, rank.id.generation);
  world_.After(world_.random.Duration(absl::Milliseconds(5), absl::Milliseconds(800)),
               [this, id = rank.id, process = rank.process] { Join(id, process); });
}

SimRank* Training::Find(const core::RankRef& id, uint64_t process) {
  auto it = live_.find(id);
  return it == live_.end() || it->second->process != process ? nullptr : it->second;
}

SimRank* Training::Pick() {
  if (live_.empty()) return nullptr;
  auto it = live_.begin();
  std::advance(it, world_.random.Below(static_cast<int>(live_.size())));
  return it->second;
}

void Training::Vanish(const core::RankRef& id) {
  live_.erase(id);
  world_.processes.erase(id);
  const GangId gang{id.job, id.generation};
  gangs_[gang].ranks.erase(id.rank);
  Break(gang);
}

void Training::Exit(const core::RankRef& named, uint64_t process, std::optional<FailureCause> cause, bool finished) {
  const core::RankRef id = named;  // may belong to the rank that vanishes
  SimRank* rank = Find(id, process);
  if (rank == nullptr) return;
  world_.Trace("exit ", Name(id), " ", cause.has_value() ? ToString(cause->kind) : (finished ? "finished" : "0"));
  SimAgent* agent = rank->agent;
  Vanish(id);
  agent->Exited(id, cause);
}

// A member has gone: the others' collectives fail after a while.
void Training::Break(const GangId& id) {
  Gang& gang = gangs_[id];
  gang.broken = true;
  for (const auto& [number, rank] : gang.ranks) {
    if (!rank->training || rank->finishing || rank->hung) continue;
    world_.After(world_.random.Duration(absl::Milliseconds(5), absl::Seconds(2)),
                 [this, ref = rank->id, process = rank->process] {
                   SimRank* one = Find(ref, process);
                   if (one == nullptr || one->finishing) return;
                   Exit(ref, process, FailureCause{.kind = CauseKind::kPeerLost});
                 });
  }
}

bool Training::Refused(SimRank& rank, const v1::RankCallReply& reply) {
  if (reply.code() != static_cast<int32_t>(absl::StatusCode::kFailedPrecondition)) return false;
  Exit(rank.id, rank.process, FailureCause{.kind = CauseKind::kPreempted, .detail = "stale"});
  return true;
}

bool Training::Fenced(SimRank& rank) {
  if (world_.fences[rank.id.job] <= rank.id.generation) return false;
  Exit(rank.id, rank.process, FailureCause{.kind = CauseKind::kPreempted, .detail = "fenced"});
  return true;
}

void Training::Join(const core::RankRef& id, uint64_t process) {
  SimRank* rank = Find(id, process);
  if (rank == nullptr) return;
  v1::RankCall call;
  call.mutable_join()->set_endpoint(id.rank == 0 ? absl::StrCat("host:", process) : "");
  rank->agent->Call(id, std::move(call), [this, id, process](const v1::RankCallReply& reply) {
    if (SimRank* one = Find(id, process)) Joined(*one, reply);
  });
}

void Training::Joined(SimRank& rank, const v1::RankCallReply& reply) {
  if (Refused(rank, reply)) return;
  if (reply.code() != 0) return Join(rank.id, rank.process);
  if (reply.plan().world_size() != rank.world_size || reply.plan().store_endpoint().empty()) {
    return world_.Fail(absl::StrCat(Name(rank.id), " got a plan without its world or store"));
  }
  rank.resume = {reply.plan().resume().begin(), reply.plan().resume().end()};
  world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(500)),
               [this, id = rank.id, process = rank.process] { Restore(id, process); });
}

void Training::Restore(const core::RankRef& id, uint64_t process) {
  SimRank* rank = Find(id, process);
  if (rank == nullptr) return;
  Gang& gang = gangs_[{id.job, id.generation}];
  if (id.rank == 0) {
    gang.step = 0;
    for (const v1::ResumePoint& point : rank->resume) {
      // "<root>/<job>/step-000000000120"
      const core::JobId owner(std::filesystem::path(point.path()).parent_path().filename().string());
      auto files = world_.disk.find({owner, point.step()});
      if (files == world_.disk.end() || files->second.manifest == 0) {
        return world_.Fail(
            absl::StrCat(Name(id), " is told to resume from step ", point.step(), ", which has no files"));
      }
      if (world_.faults && !point.weights_only() && world_.random.Chance(0.05)) {
        v1::RankCall call;
        call.mutable_report_damage()->set_step(point.step());
        call.mutable_report_damage()->set_reason("crc32c differs");
        rank->agent->Call(id, std::move(call), [](const v1::RankCallReply&) {});
        continue;
      }
      gang.step = point.weights_only() ? 0 : point.step();
      break;
    }
    gang.last_save = gang.step;
  }
  rank->training = true;
  if (gang.broken) return Break({id.job, id.generation});
  const bool all =
      static_cast<int32_t>(gang.ranks.size()) == gang.world_size &&
      std::all_of(gang.ranks.begin(), gang.ranks.end(), [](const auto& one) { return one.second->training; });
  if (!all || gang.ticking) return;
  gang.ticking = true;
  for (auto& [number, one] : gang.ranks) one->progress.resumed_from_step = one->progress.step = gang.step;
  world_.After(shapes[id.job].step_time, [this, gang_id = GangId{id.job, id.generation}] { Tick(gang_id); });
}

// One step of all ranks, or none.
void Training::Tick(const GangId& id) {
  Gang& gang = gangs_[id];
  if (gang.broken || gang.ranks.empty()) return;
  const JobShape& shape = shapes[id.first];
  const bool hung = std::any_of(gang.ranks.begin(), gang.ranks.end(), [](const auto& one) { return one.second->hung; });
  if (hung) return;  // nobody advances until somebody is killed
  if (MaybeFail(gang)) return;
  if (!gang.leaving && gang.step < shape.total_steps) {
    ++gang.step;
    for (auto& [number, rank] : gang.ranks) {
      rank->progress.step = gang.step;
      rank->progress.phase = "training";
      rank->progress.step_seconds = absl::ToDoubleSeconds(shape.step_time);
      rank->progress.samples += 32;
    }
  }
  const bool leave =
      std::any_of(gang.ranks.begin(), gang.ranks.end(), [](const auto& one) { return one.second->leave; });
  const bool saving =
      std::any_of(gang.ranks.begin(), gang.ranks.end(), [](const auto& one) { return one.second->saving; });
  if (leave && !gang.leaving && !saving) {
    gang.leaving = true;
    if (gang.last_save != gang.step) Save(gang);
    MaybeLeave(gang);
  } else if (!leave && !saving && gang.last_save != gang.step &&
             (gang.step % shape.save_every == 0 || gang.step == shape.total_steps)) {
    Save(gang);
  }
  if (gang.step >= shape.total_steps && !leave && !saving) {
    std::vector<SimRank*> all;
    for (auto& [number, rank] : gang.ranks) all.push_back(rank);
    for (SimRank* rank : all) {
      if (!rank->finishing && !rank->saving) Finish(*rank);
    }
  }
  const bool over = gang.ranks.empty() || std::all_of(gang.ranks.begin(), gang.ranks.end(),
                                                      [](const auto& one) { return one.second->finishing; });
  if (!over) world_.After(shape.step_time, [this, id] { Tick(id); });
}

bool Training::MaybeFail(Gang& gang) {
  auto victim = gang.ranks.begin();
  std::advance(victim, world_.random.Below(static_cast<int>(gang.ranks.size())));
  SimRank& rank = *victim->second;
  const JobShape& shape = shapes[rank.id.job];
  if (shape.always_fails) {
    Exit(rank.id, rank.process, FailureCause{.kind = CauseKind::kUserCode, .detail = "throws"});
    return true;
  }
  if (!world_.faults || !world_.random.Chance(shape.fail_per_step)) return false;
  if (world_.random.Chance(0.15)) {
    world_.Trace("hang ", Name(rank.id));
    rank.hung = true;
    return true;
  }
  if (world_.random.Chance(0.05)) {
    Exit(rank.id, rank.process, std::nullopt);  // leaves early with code 0
  } else if (world_.random.Chance(0.1)) {
    Exit(rank.id, rank.process, FailureCause{.kind = CauseKind::kPreempted, .detail = "SIGTERM from outside"});
  } else {
    Exit(rank.id, rank.process, RandomCause(world_.random));
  }
  return true;
}

void Training::Save(Gang& gang) {
  gang.last_save = gang.step;
  std::vector<SimRank*> all;
  for (auto& [number, rank] : gang.ranks) all.push_back(rank);
  for (SimRank* rank : all) Shard(*rank, gang.step);
}

void Training::Shard(SimRank& rank, core::Step step) {
  rank.saving = true;
  const core::RankRef id = rank.id;
  const uint64_t process = rank.process;
  if (world_.faults && world_.random.Chance(0.02)) {
    v1::RankCall call;
    call.mutable_abandon_checkpoint()->set_step(step);
    call.mutable_abandon_checkpoint()->set_reason("no space left on device");
    return rank.agent->Call(id, std::move(call), [this, id, process](const v1::RankCallReply& reply) {
      SimRank* one = Find(id, process);
      if (one != nullptr && !Refused(*one, reply)) SaveOver(*one);
    });
  }
  world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(400)), [this, id, process, step] {
    SimRank* one = Find(id, process);
    if (one == nullptr || Fenced(*one)) return;
    world_.disk[{id.job, step}].shards[id.rank] = id.generation;
    v1::RankCall call;
    call.mutable_commit_shard()->set_step(step);
    v1::ShardInfo& shard = *call.mutable_commit_shard()->mutable_shard();
    shard.set_rank(id.rank);
    shard.set_file(absl::StrCat("shard-", id.rank));
    shard.set_bytes(100);
    shard.set_crc32c(static_cast<uint32_t>(step));
    one->agent->Call(id, std::move(call), [this, id, process, step](const v1::RankCallReply& reply) {
      ShardAnswered(id, process, step, reply);
    });
  });
}

void Training::ShardAnswered(const core::RankRef& id, uint64_t process, core::Step step,
                             const v1::RankCallReply& reply) {
  SimRank* rank = Find(id, process);
  if (rank == nullptr || Refused(*rank, reply)) return;
  if (reply.code() != 0 || id.rank != 0) return SaveOver(*rank);
  if (reply.shards_size() != rank->world_size) {
    return world_.Fail(absl::StrCat(Name(id), ": sealed with ", reply.shards_size(), " shards"));
  }
  world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(100)), [this, id, process, step] {
    if (SimRank* one = Find(id, process)) Manifest(*one, step);
  });
}

void Training::Manifest(SimRank& rank, core::Step step) {
  const core::RankRef id = rank.id;
  const uint64_t process = rank.process;
  if (Fenced(rank)) return;
  world_.disk[{id.job, step}].manifest = id.generation;
  v1::RankCall call;
  v1::CommitManifest& manifest = *call.mutable_commit_manifest();
  manifest.set_step(step);
  manifest.set_bytes(100 * rank.world_size);
  manifest.set_is_best(world_.random.Chance(0.3));
  manifest.set_save_seconds(0.1);
  rank.agent->Call(id, std::move(call), [this, id, process, step](const v1::RankCallReply& reply) {
    SimRank* one = Find(id, process);
    if (one == nullptr || Refused(*one, reply)) return;
    // Now and then an evaluation follows the commit, as at the end of a training.
    if (reply.code() == 0 && world_.random.Chance(0.2)) return Evaluation(*one, step);
    SaveOver(*one);
  });
}

void Training::Evaluation(SimRank& rank, core::Step step) {
  const core::RankRef id = rank.id;
  const uint64_t process = rank.process;
  if (Fenced(rank)) return;
  v1::RankCall call;
  call.mutable_report_evaluation()->set_step(step);
  call.mutable_report_evaluation()->set_is_best(world_.random.Chance(0.3));
  (*call.mutable_report_evaluation()->mutable_metrics())["loss"] = world_.random.Chance(0.5) ? 1 : 0.5;
  rank.agent->Call(id, std::move(call), [this, id, process](const v1::RankCallReply& reply) {
    SimRank* one = Find(id, process);
    if (one == nullptr || Refused(*one, reply)) return;
    SaveOver(*one);
  });
}

void Training::SaveOver(SimRank& rank) {
  rank.saving = false;
  MaybeLeave(gangs_[{rank.id.job, rank.id.generation}]);
}

// Ranks leave together: each when its own part of the save is over.
void Training::MaybeLeave(Gang& gang) {
  if (!gang.leaving) return;
  std::vector<SimRank*> done;
  for (auto& [number, rank] : gang.ranks) {
    if (!rank->saving) done.push_back(rank);
  }
  if (done.size() != gang.ranks.size()) return;
  for (SimRank* rank : done) rank->finishing = true;
  for (SimRank* rank : done)
    Exit(rank->id, rank->process, FailureCause{.kind = CauseKind::kPreempted, .detail = "left"});
}

void Training::Finish(SimRank& rank) {
  rank.finishing = true;
  rank.progress.phase = "finishing";
  const core::RankRef id = rank.id;
  const uint64_t process = rank.process;
  v1::RankCall call;
  *call.mutable_finish()->mutable_progress() = ToProto(rank.progress);
  rank.agent->Call(id, std::move(call), [this, id, process](const v1::RankCallReply& reply) {
    SimRank* one = Find(id, process);
    if (one != nullptr && !Refused(*one, reply)) Exit(id, process, std::nullopt, true);
  });
}

}  // namespace athanor::sim

#include "tests/sim/sim_agent.h"

#include <algorithm>
#include <utility>

namespace athanor::sim {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(1);

template <typename Event>
uint64_t SetCall(core::Event& event, uint64_t call) {
  if (auto* one = std::get_if<Event>(&event)) one->call = call;
  return call;
}

void Number(core::Event& event, uint64_t call) {
  SetCall<core::RankJoined>(event, call);
  SetCall<core::ShardCommitted>(event, call);
  SetCall<core::ManifestCommitted>(event, call);
  SetCall<core::CheckpointAbandoned>(event, call);
  SetCall<core::RankFinished>(event, call);
  SetCall<core::CheckpointDamaged>(event, call);
}

}  // namespace

SimAgent::SimAgent(World& world, CoordinatorHost& host, Training& training, core::WorkerId id, int32_t slots,
                   absl::Duration lease, std::string home)
    : world_(world),
      host_(host),
      training_(training),
      id_(std::move(id)),
      slots_(slots),
      lease_(lease * 0.8),
      home_(std::move(home)) {}

void SimAgent::Start() {
  ++life_;
  alive_ = true;
  incarnation_ = 0;
  lease_until_ = absl::InfiniteFuture();  // nothing runs yet
  world_.Trace(id_.str(), " starts, instance ", life_);
  Connect();
  Beat(life_);
  GuardLease(life_);
}

void SimAgent::Crash() {
  if (!alive_) return;
  Leave();
  world_.After(world_.random.Duration(absl::Milliseconds(200), absl::Seconds(25)), [this] { Start(); });
}

void SimAgent::Freeze(absl::Duration pause) {
  if (!alive_ || frozen()) return;
  world_.Trace(id_.str(), " is frozen for ", absl::FormatDuration(pause));
  frozen_until_ = world_.now + pause;
}

void SimAgent::Leave() {
  if (!alive_) return;
  world_.Trace(id_.str(), home_, " dies");
  frozen_until_ = absl::InfinitePast();
  ++life_;
  alive_ = registered_ = false;
  for (auto& [id, rank] : ranks_) training_.Vanish(id);
  ranks_.clear();
  known_.clear();
  newest_.clear();
  outbox_.clear();
  calls_.clear();
  const core::SessionId old = std::exchange(session_, 0);
  // A machine that loses power leaves its stream open at the other end.
  if (world_.random.Chance(0.3))
    host_.BlackHole(old);
  else
    host_.Cut(old);
}

void SimAgent::Connect() {
  if (!alive_ || session_ != 0) return;
  if (frozen()) return ConnectLater();
  session_ = host_.Connect(this);
  if (session_ == 0) return ConnectLater();
  core::WorkerRegistered event;
  event.session = session_;
  event.worker = id_;
  event.incarnation = incarnation_;
  event.instance = absl::StrCat(id_.str(), home_, "-", life_);
  event.home = home_;
  event.host = id_.str();
  event.device = "cpu";
  event.slots = slots_;
  for (const auto& [id, rank] : ranks_) event.running.push_back({id, {}, rank->progress});
  register_sent_ = last_ack_ = world_.now;
  host_.Send(session_, {std::move(event), 0, world_.now});
}

void SimAgent::ConnectLater() {
  world_.After(world_.random.Duration(absl::Milliseconds(100), absl::Seconds(1)), [this, life = life_] {
    if (life == life_) Connect();
  });
}

void SimAgent::SessionBroken(core::SessionId session) {
  if (!alive_ || session != session_) return;
  session_ = 0;
  registered_ = false;
  ConnectLater();
}

void SimAgent::Send(core::Event event, uint64_t sequence) {
  if (frozen()) {
    world_.After(frozen_until_ - world_.now, [this, life = life_, event = std::move(event), sequence]() mutable {
      if (life == life_) Send(std::move(event), sequence);
    });
    return;
  }
  if (registered_) host_.Send(session_, {std::move(event), sequence, world_.now});
}

void SimAgent::SendDurable(core::Event event) {
  const uint64_t sequence = next_sequence_++;
  outbox_[sequence] = event;
  Send(std::move(event), sequence);
}

void SimAgent::Beat(uint64_t life) {
  if (life != life_) return;
  if (frozen()) {
    world_.After(frozen_until_ - world_.now, [this, life] { Beat(life); });
    return;
  }
  if (registered_) {
    core::WorkerHeartbeat beat{session_, id_, incarnation_, {}};
    for (const auto& [id, rank] : ranks_) {
      beat.reports.push_back({id, rank->progress, rank->hung ? absl::Seconds(5) : absl::Milliseconds(100)});
    }
    host_.Send(session_, {std::move(beat), 0, world_.now});
  }
  // A stream that answers nothing is given up.
  if (session_ != 0 && world_.now - last_ack_ > 4 * kHeartbeat) {
    world_.Trace(id_.str(), " gives up its silent stream");
    const core::SessionId old = session_;
    SessionBroken(old);
    host_.Cut(old);
  }
  world_.After(kHeartbeat, [this, life] { Beat(life); });
}

// Kills the strict ranks before the coordinator gives their slots away.
void SimAgent::GuardLease(uint64_t life) {
  if (life != life_) return;
  if (world_.now >= lease_until_) {  // of a frozen agent they end by themselves
    std::vector<std::pair<core::RankRef, uint64_t>> all;
    for (const auto& [id, rank] : ranks_) {
      if (training_.shapes[id.job].strict) all.push_back({id, rank->process});
    }
    if (!all.empty()) world_.Trace(id_.str(), " ends its strict ranks: its lease is over");
    for (const auto& [id, process] : all) {
      training_.Exit(id, process, core::FailureCause{.kind = core::CauseKind::kNodeLost, .detail = "lease over"});
    }
  }
  world_.After(absl::Milliseconds(100), [this, life] { GuardLease(life); });
}

void SimAgent::Deliver(core::SessionId session, const DownMessage& message) {
  if (!alive_ || session != session_) return;
  if (frozen()) {
    world_.After(frozen_until_ - world_.now, [this, session, message] { Deliver(session, message); });
    return;
  }
  std::visit([this](const auto& one) { Handle(one); }, message);
}

void SimAgent::Handle(const core::AcceptWorker& accept) {
  incarnation_ = accept.incarnation;
  registered_ = true;
  lease_until_ = register_sent_ + lease_;
  last_ack_ = world_.now;
  const std::set<core::RankRef> keep(accept.keep.begin(), accept.keep.end());
  std::vector<std::pair<core::RankRef, uint64_t>> strangers;
  for (const auto& [id, rank] : ranks_) {
    if (!keep.contains(id)) strangers.push_back({id, rank->process});
  }
  for (const auto& [id, process] : strangers) {
    world_.Trace(id_.str(), " kills ", Name(id), ": not kept");
    training_.Exit(id, process, core::FailureCause{.kind = core::CauseKind::kPreempted, .detail = "stale"});
  }
  for (const auto& [sequence, event] : outbox_) Send(event, sequence);
  for (const auto& [number, call] : calls_) Send(call.event);
}

void SimAgent::Handle(const core::RefuseWorker& refuse) {
  world_.Trace(id_.str(), " refused: ", refuse.reason);
  std::vector<std::pair<core::RankRef, uint64_t>> replaced;
  for (const auto& [id, rank] : ranks_) {
    if (refuse.lease_over) replaced.push_back({id, rank->process});
  }
  for (const auto& [id, process] : replaced) {
    training_.Exit(id, process, core::FailureCause{.kind = core::CauseKind::kNodeLost, .detail = refuse.reason});
  }
  const core::SessionId old = session_;
  SessionBroken(old);
  host_.Cut(old);
}

void SimAgent::Handle(const HeartbeatAck& ack) {
  lease_until_ = std::max(lease_until_, ack.sent + lease_);
  if (lease_until_ == absl::InfiniteFuture()) lease_until_ = ack.sent + lease_;
  last_ack_ = world_.now;
}

void SimAgent::Handle(const Ack& ack) {
  outbox_.erase(outbox_.begin(), outbox_.upper_bound(ack.sequence));
}

void SimAgent::Handle(const LaunchRank& launch) {
  if (ranks_.contains(launch.id) || ReportsEndOf(launch.id)) return;  // a repetition
  // The fence of the job's folder is read before a start.
  core::Generation& newest = newest_[launch.id.job];
  newest = std::max(newest, world_.fences[launch.id.job]);
  if (!known_.insert(launch.id).second || newest > launch.id.generation) return ReportEnded(launch.id, "old records");
  newest = std::max(newest, launch.id.generation);
  const bool strict = training_.shapes[launch.id.job].strict;
  for (const auto& [id, worker] : world_.processes) {
    if (id.job == launch.id.job && id.generation != launch.id.generation && (strict || ranks_.contains(id))) {
      world_.Fail(absl::StrCat(Name(launch.id), " starts while ", Name(id), " still runs on ", worker.str()));
    }
  }
  auto& rank = ranks_[launch.id] = std::make_unique<SimRank>();
  rank->id = launch.id;
  rank->agent = this;
  rank->world_size = launch.world_size;
  if (world_.faults && world_.random.Chance(0.01)) {
    training_.Launch(*rank);
    return training_.Exit(launch.id, rank->process, core::FailureCause{.kind = core::CauseKind::kLaunchFailed});
  }
  SendDurable(core::RankLaunched{session_, id_, launch.id, 1});
  training_.Launch(*rank);
}

void SimAgent::Handle(const core::StopTrainer& stop) {
  auto it = ranks_.find(stop.id);
  if (it == ranks_.end()) {
    if (!ReportsEndOf(stop.id)) ReportEnded(stop.id, "not here");
    known_.insert(stop.id);
    return;
  }
  it->second->asked_to_stop = true;
  if (stop.mode == core::StopMode::kKill) {
    return training_.Exit(stop.id, it->second->process, core::FailureCause{.kind = core::CauseKind::kPreempted});
  }
  training_.Stop(*it->second, stop);
}

void SimAgent::Handle(const core::RankReply& reply) {
  auto call = calls_.extract(reply.call);
  if (!call.empty()) call.mapped().answer(reply);
}

void SimAgent::Handle(const core::DeleteFiles& deletion) {
  world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(300)), [this, life = life_, deletion] {
    if (life != life_) return;
    core::FilesDeleted done{id_, deletion.job, deletion.step, ""};
    if (world_.faults && world_.random.Chance(0.05)) {
      done.error = "read-only file system";
    } else {
      world_.disk.erase({deletion.job, deletion.step});
    }
    SendDurable(std::move(done));
  });
}

void SimAgent::ReportEnded(const core::RankRef& id, const std::string& why) {
  core::FailureCause cause{.kind = core::CauseKind::kPreempted, .detail = why};
  SendDurable(core::RankExited{session_, id_, id, std::move(cause), false, newest_[id.job]});
}

bool SimAgent::ReportsEndOf(const core::RankRef& id) const {
  return std::any_of(outbox_.begin(), outbox_.end(), [&](const auto& one) {
    const auto* exited = std::get_if<core::RankExited>(&one.second);
    return exited != nullptr && exited->id == id;
  });
}

void SimAgent::Call(const core::RankRef& id, core::Event event, std::function<void(const core::RankReply&)> answer) {
  const uint64_t number = next_call_++;
  Number(event, number);
  calls_[number] = {id, event, std::move(answer)};
  Send(std::move(event));
}

void SimAgent::Exited(const core::RankRef& named, std::optional<core::FailureCause> cause, bool finished) {
  const core::RankRef id = named;  // may be the key that is erased
  ranks_.erase(id);
  std::erase_if(calls_, [&](const auto& call) { return call.second.id == id; });
  SendDurable(core::RankExited{session_, id_, id, std::move(cause), finished});
}

}  // namespace athanor::sim

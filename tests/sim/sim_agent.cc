#include "tests/sim/sim_agent.h"

#include <csignal>
#include <utility>

#include "server/convert/proto_convert.h"

namespace athanor::sim {
namespace {

constexpr absl::Duration kReport = absl::Seconds(1);  // of the ranks to their agent
constexpr absl::Duration kShutdownGrace = absl::Seconds(5), kShutdownLimit = absl::Seconds(15);

}  // namespace

SimAgent::SimAgent(World& world, CoordinatorHost& host, Training& training, core::WorkerId id, int32_t slots,
                   std::string home)
    : world_(world), host_(host), training_(training), id_(std::move(id)), slots_(slots), home_(std::move(home)) {}

void SimAgent::Start() {
  ++life_;
  world_.Trace(id_.str(), " starts, instance ", life_);
  core_.emplace(agent::AgentIdentity{.name = id_.str(),
                                     .instance = absl::StrCat(id_.str(), home_, "-", life_),
                                     .host = id_.str(),
                                     .device = "cpu",
                                     .version = "",
                                     .slots = slots_,
                                     .labels = {},
                                     .home = home_});
  armed_ = absl::InfiniteFuture();
  Connect();
  Report();
  GuardStrictRanks();
}

void SimAgent::Crash() {
  if (!alive()) return;
  Leave();
  ComeBack();
}

void SimAgent::ComeBack() {
  world_.After(world_.random.Duration(absl::Milliseconds(200), absl::Seconds(25)), [this] {
    if (!alive()) Start();
  });
}

void SimAgent::ShutDown() {
  if (!alive() || core_->leaving()) return;
  world_.Trace(id_.str(), home_, " is asked to end");
  Feed([this](agent::AgentCore& core) { return core.OnShutdown(kShutdownGrace, world_.now); });
  Later(kShutdownLimit, [this] { Crash(); });
}

// As the agent's loop does: every rank has ended and the coordinator knows.
void SimAgent::EndIfDone() {
  if (core_->leaving() && core_->rank_count() == 0 && core_->OutboxDrained())
    Later(absl::ZeroDuration(), [this] { Crash(); });
}

void SimAgent::Freeze(absl::Duration pause) {
  if (!alive() || frozen()) return;
  world_.Trace(id_.str(), " is frozen for ", absl::FormatDuration(pause));
  frozen_until_ = world_.now + pause;
}

void SimAgent::Leave() {
  if (!alive()) return;
  world_.Trace(id_.str(), home_, " dies");
  frozen_until_ = absl::InfinitePast();
  ++life_;
  core_.reset();
  for (auto& [id, rank] : ranks_) training_.Vanish(id);
  ranks_.clear();
  calls_.clear();
  const core::SessionId old = std::exchange(session_, 0);
  // A machine that loses power leaves its stream open at the other end.
  if (world_.random.Chance(0.3))
    host_.BlackHole(old);
  else
    host_.Cut(old);
}

void SimAgent::Later(absl::Duration delay, std::function<void()> what) {
  world_.After(delay, [this, life = life_, what = std::move(what)] {
    if (life == life_ && alive()) what();
  });
}

void SimAgent::Feed(std::function<Effects(agent::AgentCore& core)> input) {
  if (!alive()) return;
  if (frozen()) return Later(frozen_until_ - world_.now, [this, input = std::move(input)] { Feed(input); });
  Perform(input(*core_));
}

void SimAgent::Perform(Effects effects) {
  for (agent::Effect& effect : effects) {
    std::visit([this](auto& one) { Do(one); }, effect);
  }
  ArmTimer();
  EndIfDone();
}

void SimAgent::ArmTimer() {
  const absl::Time next = core_->NextDeadline();
  if (next == armed_ || next == absl::InfiniteFuture()) return;
  armed_ = next;
  Later(std::max(absl::ZeroDuration(), next - world_.now), [this, next] {
    if (armed_ != next) return;
    Feed([this](agent::AgentCore& core) {
      armed_ = absl::InfiniteFuture();
      return core.OnTick(world_.now);
    });
  });
}

// ---- the stream ----

void SimAgent::Connect() {
  Feed([this](agent::AgentCore& core) -> Effects {
    if (session_ != 0) return {};
    session_ = host_.Connect(this);
    if (session_ != 0) return core.OnSessionOpened(world_.now);
    Later(world_.random.Duration(absl::Milliseconds(100), absl::Seconds(1)), [this] { Connect(); });
    return {};
  });
}

SimAgent::Effects SimAgent::LoseSession(agent::AgentCore& core, core::SessionId session) {
  if (session != session_) return {};
  session_ = 0;
  Later(world_.random.Duration(absl::Milliseconds(100), absl::Seconds(1)), [this] { Connect(); });
  return core.OnSessionClosed(world_.now);
}

void SimAgent::SessionBroken(core::SessionId session) {
  Feed([this, session](agent::AgentCore& core) { return LoseSession(core, session); });
}

void SimAgent::Deliver(core::SessionId session, v1::CoordinatorMessage message) {
  Feed([this, session, message = std::move(message)](agent::AgentCore& core) {
    return session == session_ ? core.OnMessage(message, world_.now) : Effects();
  });
}

void SimAgent::Do(agent::SendMessage& effect) {
  if (session_ != 0) host_.Send(session_, std::move(effect.message));
}

void SimAgent::Do(agent::CloseSession& effect) {
  world_.Trace(id_.str(), " closes its stream: ", effect.reason);
  const core::SessionId old = session_;
  Perform(LoseSession(*core_, old));
  host_.Cut(old);
}

// ---- processes ----

SimRank* SimAgent::Find(const agent::RankKey& key) {
  const auto it = ranks_.find(FromProto(agent::IdOf(key)));
  return it == ranks_.end() ? nullptr : it->second.get();
}

void SimAgent::Do(agent::LaunchProcess& effect) {
  Later(world_.random.Duration(absl::ZeroDuration(), absl::Milliseconds(50)),
        [this, launch = std::move(effect.launch)] {
          Feed([this, launch](agent::AgentCore& core) { return StartProcess(core, launch); });
        });
}

SimAgent::Effects SimAgent::StartProcess(agent::AgentCore& core, const v1::LaunchRank& launch) {
  const core::RankRef id = FromProto(launch.id());
  const agent::RankKey key = agent::KeyOf(launch.id());
  if (!core.Runs(key)) return {};
  // The fence of the job's folder is read before a start.
  if (const core::Generation fence = world_.fences[id.job]; fence > id.generation) {
    core.SawGeneration(key.job, fence);
    return core.OnProcessExited(key, ToProto(core::FailureCause{.kind = core::CauseKind::kPreempted}), world_.now);
  }
  if (world_.faults && world_.random.Chance(0.01))
    return core.OnProcessExited(key, ToProto(core::FailureCause{.kind = core::CauseKind::kLaunchFailed}), world_.now);
  CheckAlone(id);
  auto& rank = ranks_[id] = std::make_unique<SimRank>();
  rank->id = id;
  rank->agent = this;
  rank->world_size = launch.world_size();
  training_.Launch(*rank);
  return core.OnProcessStarted(key, static_cast<int64_t>(rank->process), world_.now);
}

// A job's older ranks are gone before new ones start: everywhere with strict fencing, else on this machine.
void SimAgent::CheckAlone(const core::RankRef& id) const {
  const bool strict = training_.shapes[id.job].strict;
  for (const auto& [other, worker] : world_.processes) {
    if (other.job == id.job && other.generation != id.generation && (strict || ranks_.contains(other)))
      world_.Fail(absl::StrCat(Name(id), " starts while ", Name(other), " still runs on ", worker.str()));
  }
}

void SimAgent::Do(agent::KillProcess& effect) {
  SimRank* rank = Find(effect.key);  // of one that is still being started the core asks again
  if (rank == nullptr) return;
  training_.Exit(rank->id, rank->process, core::FailureCause{.kind = core::CauseKind::kSignal, .signal = SIGKILL});
}

void SimAgent::Do(agent::DirectRank& effect) {
  if (SimRank* rank = Find(effect.key); rank != nullptr && effect.directive.stop() == v1::SAVE_AND_LEAVE)
    rank->leave = true;
}

void SimAgent::Exited(const core::RankRef& named, const std::optional<core::FailureCause>& cause) {
  const core::RankRef id = named;  // may be of the rank that is erased
  ranks_.erase(id);
  std::erase_if(calls_, [&](const auto& call) { return call.second.id == id; });
  std::optional<v1::FailureCause> told;
  if (cause.has_value()) told = ToProto(*cause);
  Feed([this, key = agent::KeyOf(ToProto(id)), told](agent::AgentCore& core) {
    return core.OnProcessExited(key, told, world_.now);
  });
}

// A trainer whose agent stands still ends by itself when the lease that it was last told is over.
void SimAgent::GuardStrictRanks() {
  if (frozen() && world_.now >= core_->lease_until()) {
    std::vector<std::pair<core::RankRef, uint64_t>> strict;
    for (const auto& [id, rank] : ranks_) {
      if (training_.shapes[id.job].strict) strict.push_back({id, rank->process});
    }
    for (const auto& [id, process] : strict)
      training_.Exit(id, process, core::FailureCause{.kind = core::CauseKind::kNodeLost, .detail = "lease over"});
  }
  Later(absl::Milliseconds(100), [this] { GuardStrictRanks(); });
}

// ---- what ranks say ----

void SimAgent::Report() {
  for (const auto& [id, rank] : ranks_) {
    if (rank->hung) continue;
    Feed([this, key = agent::KeyOf(ToProto(id)), progress = ToProto(rank->progress)](agent::AgentCore& core) {
      core.OnRankReport(key, progress, world_.now);
      return Effects();
    });
  }
  Later(kReport, [this] { Report(); });
}

void SimAgent::Call(const core::RankRef& id, v1::RankCall call, std::function<void(const v1::RankCallReply&)> answer) {
  const uint64_t token = next_call_++;
  *call.mutable_id() = ToProto(id);
  calls_[token] = {id, std::move(answer)};
  Feed([this, token, call = std::move(call)](agent::AgentCore& core) {
    return core.OnRankCall(token, call, world_.now);
  });
}

void SimAgent::Do(agent::AnswerRank& effect) {
  if (auto call = calls_.extract(effect.token); !call.empty()) call.mapped().answer(effect.reply);
}

void SimAgent::Do(agent::RemoveCheckpoint& effect) {
  Later(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(300)),
        [this, request = std::move(effect.request)] {
          Feed([this, request](agent::AgentCore& core) {
            v1::FilesDeleted done;
            done.set_job(request.job());
            done.set_step(request.step());
            if (world_.faults && world_.random.Chance(0.05)) {
              done.set_error("read-only file system");
            } else {
              world_.disk.erase({core::JobId(request.job()), request.step()});
            }
            return core.OnFilesDeleted(done);
          });
        });
}

}  // namespace athanor::sim

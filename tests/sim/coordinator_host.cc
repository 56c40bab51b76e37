#include "tests/sim/coordinator_host.h"

#include <algorithm>
#include <cmath>

#include "server/convert/agent_messages.h"
#include "server/core/invariants.h"
#include "tests/sim/sim_agent.h"

namespace athanor::sim {
namespace {

constexpr char kRoot[] = "/checkpoints";

// The number that a client's verb must be answered under; 0 for other events.
core::CallId VerbOf(const core::Event& event) {
  return std::visit(
      [](const auto& one) -> core::CallId {
        if constexpr (requires {
                        one.call;
                        one.request;
                      })
          return one.call;
        return 0;
      },
      event);
}

}  // namespace

void CoordinatorHost::Start() {
  if (restored_) PutFilesBack();
  core_ = std::make_unique<core::CoordinatorCore>(options_.core, store_.Load(), world_.now);
  world_.Trace("coordinator up");
  std::vector<core::Effect> effects = core_->Recover(world_.now);
  CheckStep(nullptr, effects);
  store_.Commit(effects);
  Release(effects);
  ArmDeadline();
}

void CoordinatorHost::Crash(const char* why, std::optional<absl::Duration> away) {
  if (!up()) return;
  world_.Trace("coordinator down: ", why);
  ++life_;
  core_.reset();
  queue_.clear();
  pump_scheduled_ = false;
  paused_until_ = absl::InfinitePast();
  armed_ = absl::InfiniteFuture();
  by_worker_.clear();
  rank_calls_.clear();
  client_calls_.clear();
  for (auto& [id, session] : sessions_) {
    if (!session.open) continue;
    session.open = false;
    world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(50)),
                 [agent = session.agent, id = id] { agent->SessionBroken(id); });
  }
  const absl::Duration pause =
      away.has_value() ? *away : world_.random.Duration(absl::Milliseconds(100), absl::Seconds(6));
  world_.After(pause, [this] { Start(); });
}

bool CoordinatorHost::CrashAndRestore() {
  if (!up() || !copy_.has_value()) return false;
  world_.Trace("an older copy of the store is restored");
  Crash("for a restore", world_.random.Duration(absl::Milliseconds(500), absl::Seconds(6)));
  store_.Restore(*std::exchange(copy_, std::nullopt));
  seen_.clear();
  restored_ = true;
  return true;
}

// The checkpoints were in the backup too.
void CoordinatorHost::PutFilesBack() {
  restored_ = false;
  for (const auto& [job, checkpoints] : store_.durable().checkpoints) {
    for (const auto& [step, checkpoint] : checkpoints) {
      if (checkpoint.state != core::CheckpointState::kCommitted) continue;
      CheckpointFiles& files = world_.disk[{job, step}];
      files.manifest = checkpoint.generation;
      for (core::Rank rank = 0; rank < checkpoint.shards_expected; ++rank) files.shards[rank] = checkpoint.generation;
    }
  }
}

void CoordinatorHost::Partition(SimAgent* agent, bool up, bool down, absl::Duration pause) {
  world_.Trace("partition of ", agent->id().str(), up ? " up" : "", down ? " down" : "", " for ",
               absl::FormatDuration(pause));
  auto& [up_until, down_until] = partitions_[agent];
  if (up) up_until = world_.now + pause;
  if (down) down_until = world_.now + pause;
}

void CoordinatorHost::Pause(absl::Duration gap) {
  if (!up() || paused_until_ > world_.now) return;
  world_.Trace("coordinator starved for ", absl::FormatDuration(gap));
  paused_until_ = world_.now + gap;
  queue_.push_front({core::ClockGap{gap}, nullptr});
  SchedulePump();
}

core::SessionId CoordinatorHost::Connect(SimAgent* agent) {
  if (!up()) return 0;
  const core::SessionId id = next_session_++;
  sessions_[id].agent = agent;
  return id;
}

void CoordinatorHost::Send(core::SessionId id, v1::AgentMessage message) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || !it->second.open || it->second.black_hole) return;
  Session& session = it->second;
  if (auto cut = partitions_.find(session.agent); cut != partitions_.end() && world_.now < cut->second.first) return;
  const absl::Duration delay = world_.random.Duration(absl::Microseconds(100), absl::Milliseconds(20));
  session.last_up = std::max(session.last_up, world_.now + delay);
  world_.After(session.last_up - world_.now, [this, id, life = life_, message = std::move(message)]() mutable {
    if (life == life_) Arrive(id, std::move(message));
  });
}

void CoordinatorHost::Arrive(core::SessionId id, v1::AgentMessage message) {
  // What was on its way when its stream broke may be lost, or come late: after the messages of the next stream.
  if (!sessions_.at(id).open && world_.random.Chance(0.5)) return;
  const core::WorkerId& worker = sessions_.at(id).agent->id();
  if (message.has_register_()) return Post(EventOf(message.register_(), id));
  core::CallId call = 0;
  if (message.has_call()) rank_calls_[call = next_call_++] = {id, message.call().call()};
  std::optional<core::Event> event = EventOf(message, id, worker, call);
  if (!event.has_value()) return world_.Fail(absl::StrCat("a message of ", worker.str(), " that is no event"));
  v1::CoordinatorMessage answer;
  if (message.sequence() != 0) answer.mutable_ack()->set_sequence(message.sequence());
  if (message.has_heartbeat()) answer.mutable_heartbeat_ack()->set_number(message.heartbeat().number());
  Post(*std::move(event), [this, id, answer = std::move(answer)] {
    if (answer.body_case() != v1::CoordinatorMessage::BODY_NOT_SET) Down(id, answer);
  });
}

void CoordinatorHost::Cut(core::SessionId id) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || !it->second.open) return;
  Session& session = it->second;
  world_.Trace("stream ", id, " of ", session.agent->id().str(), " is cut");
  session.open = false;
  if (!session.black_hole) {
    world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(200)),
                 [agent = session.agent, id] { agent->SessionBroken(id); });
  }
  world_.After(world_.random.Duration(absl::Milliseconds(1), absl::Milliseconds(500)),
               [this, id, life = life_, worker = session.agent->id()] {
                 if (life == life_ && up()) Post(core::SessionLost{id, worker});
               });
}

void CoordinatorHost::BlackHole(core::SessionId id) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || !it->second.open) return;
  world_.Trace("stream ", id, " of ", it->second.agent->id().str(), " swallows everything");
  it->second.black_hole = true;
}

void CoordinatorHost::Verb(const std::function<core::Event(core::CallId)>& make,
                           std::function<void(const core::Reply&)> answer) {
  if (!up()) return;
  const core::CallId call = next_call_++;
  client_calls_[call] = std::move(answer);
  Post(make(call));
}

void CoordinatorHost::Post(core::Event event, std::function<void()> done) {
  if (!up()) return;
  queue_.push_back({std::move(event), std::move(done)});
  SchedulePump();
}

void CoordinatorHost::SchedulePump() {
  if (pump_scheduled_) return;
  pump_scheduled_ = true;
  const absl::Duration delay =
      std::max(world_.random.Duration(absl::ZeroDuration(), absl::Milliseconds(2)), paused_until_ - world_.now);
  world_.After(delay, [this, life = life_] {
    if (life != life_) return;
    pump_scheduled_ = false;
    Pump();
  });
}

// One batch: step each event, commit once, release. A crash loses the batch, or only what was to be released.
void CoordinatorHost::Pump() {
  if (paused_until_ > world_.now) return SchedulePump();
  std::vector<core::Effect> effects;
  std::vector<std::function<void()>> done;
  while (!queue_.empty() && !world_.failed()) {
    Item item = std::move(queue_.front());
    queue_.pop_front();
    std::vector<core::Effect> more = StepOne(item.event);
    std::move(more.begin(), more.end(), std::back_inserter(effects));
    if (item.done) done.push_back(std::move(item.done));
  }
  if (world_.faults && world_.random.Chance(options_.crash_before_commit)) return Crash("before the commit");
  store_.Commit(effects);
  CheckJobs();
  if (world_.faults && world_.random.Chance(options_.crash_after_commit)) return Crash("after the commit");
  Release(effects);
  for (const auto& one : done) one();
  ArmDeadline();
}

std::vector<core::Effect> CoordinatorHost::StepOne(const core::Event& event) {
  ++steps_;
  std::vector<core::Effect> effects = core_->Step(event, world_.now);
  CheckStep(&event, effects);
  return effects;
}

void CoordinatorHost::CheckStep(const core::Event* event, const std::vector<core::Effect>& effects) {
  if (absl::Status status = core::CheckInvariants(core_->state()); !status.ok()) world_.Fail(status.ToString());
  const core::CallId verb = event == nullptr ? 0 : VerbOf(*event);
  int replies = 0;
  for (const core::Effect& effect : effects) {
    if (const auto* reply = std::get_if<core::Reply>(&effect)) {
      ++replies;
      if (reply->call != verb) world_.Fail(absl::StrCat("a reply to call ", reply->call, " in the step of ", verb));
    }
    const auto* put = std::get_if<core::PutRecord>(&effect);
    const auto* entry = put == nullptr ? nullptr : std::get_if<core::JobEventEntry>(&put->record);
    if (entry == nullptr) continue;
    world_.Trace("  ", entry->job.str(), " ", entry->type, " g", entry->generation, " ", entry->message);
    if (entry->type == "InternalError") world_.Fail(absl::StrCat(entry->job.str(), ": ", entry->message));
  }
  if (replies != (verb != 0 ? 1 : 0)) world_.Fail(absl::StrCat("verb ", verb, " was answered ", replies, " times"));
  const bool reached = event == nullptr || std::holds_alternative<core::DeadlineReached>(*event);
  if (reached && core_->NextDeadline() <= world_.now) {
    world_.Fail("a deadline that was reached stays");
  }
  for (const auto& [id, job] : core_->state().jobs) {
    const core::GoodputEntry& g = job.goodput;
    const double sum = g.productive_seconds + g.recomputed_seconds + g.checkpoint_seconds + g.recovery_seconds +
                       g.queue_seconds + g.suspended_seconds;
    const double age = absl::ToDoubleSeconds(g.accounted_until - job.created_at);
    if (std::abs(sum - age) > 1e-3) world_.Fail(absl::StrCat(id.str(), ": goodput sums to ", sum, " of ", age, " s"));
  }
}

// What was durable stays true: jobs do not vanish, generations only grow, final states are final.
void CoordinatorHost::CheckJobs() {
  if (steps_ % 16 == 0) {
    if (std::string what = store_.Difference(core_->state()); !what.empty()) world_.Fail("not stored: " + what);
  }
  for (const auto& [id, job] : store_.durable().jobs) {
    auto& [generation, state] = seen_.try_emplace(id, job.generation, job.state).first->second;
    if (job.generation < generation) world_.Fail(absl::StrCat(id.str(), ": its generation went back"));
    if (core::IsFinal(state) && job.state != state) world_.Fail(absl::StrCat(id.str(), " left a final state"));
    generation = job.generation;
    state = job.state;
  }
  CheckFiles();
}

// A checkpoint that the ledger calls committed has all its files.
void CoordinatorHost::CheckFiles() {
  for (const auto& [job, checkpoints] : store_.durable().checkpoints) {
    for (const auto& [step, checkpoint] : checkpoints) {
      if (checkpoint.state != core::CheckpointState::kCommitted) continue;
      auto files = world_.disk.find({job, step});
      const bool whole = files != world_.disk.end() && files->second.manifest != 0 &&
                         static_cast<int32_t>(files->second.shards.size()) >= checkpoint.shards_expected;
      if (whole && files->second.manifest < checkpoint.generation)
        world_.Fail(absl::StrCat("an older generation wrote over step ", step, " of ", job.str()));
      if (!whole) world_.Fail(absl::StrCat("step ", step, " of ", job.str(), " is committed without its files"));
    }
  }
}

void CoordinatorHost::Release(const std::vector<core::Effect>& effects) {
  for (const core::Effect& effect : effects) {
    if (const auto* reply = std::get_if<core::Reply>(&effect)) {
      auto held = client_calls_.extract(reply->call);
      if (!held.empty()) held.mapped()(*reply);
    } else if (const auto* answer = std::get_if<core::RankReply>(&effect)) {
      auto held = rank_calls_.extract(answer->call);
      if (held.empty()) continue;
      v1::CoordinatorMessage message;
      *message.mutable_reply() = ReplyOf(*answer, kRoot);
      message.mutable_reply()->set_call(held.mapped().agent_call);
      Down(held.mapped().session, std::move(message));
    } else if (const auto* note = std::get_if<core::Note>(&effect)) {
      if (note->kind == core::Note::Kind::kInternalError)
        world_.Fail(absl::StrCat(note->worker.str(), ": ", note->message));
    } else if (const auto* accept = std::get_if<core::AcceptWorker>(&effect)) {
      CheckTakeover(*accept);
      by_worker_[accept->worker] = accept->session;
      Down(accept->session, MessageOf(*accept, options_.core.lease));
    } else if (const auto* refuse = std::get_if<core::RefuseWorker>(&effect)) {
      Down(refuse->session, MessageOf(*refuse));
    } else if (const auto* launch = std::get_if<core::LaunchRanks>(&effect)) {
      for (auto& [worker, message] : MessagesOf(*launch, kRoot)) ToWorker(worker, std::move(message));
    } else if (const auto* stop = std::get_if<core::StopTrainer>(&effect)) {
      ToWorker(stop->worker, MessageOf(*stop));
    } else if (const auto* deletion = std::get_if<core::DeleteFiles>(&effect)) {
      ToWorker(deletion->worker, MessageOf(*deletion, kRoot));
    }
  }
}

// A healthy agent is not displaced by another process of its name.
void CoordinatorHost::CheckTakeover(const core::AcceptWorker& accept) const {
  const auto before = by_worker_.find(accept.worker);
  if (before == by_worker_.end() || before->second == accept.session) return;
  const Session& old = sessions_.at(before->second);
  const bool partitioned =
      partitions_.contains(old.agent) &&
      world_.now - absl::Seconds(10) < std::max(partitions_.at(old.agent).first, partitions_.at(old.agent).second);
  if (old.agent == sessions_.at(accept.session).agent || !old.open || old.black_hole || partitioned) return;
  if (old.agent->healthy()) world_.Fail(absl::StrCat("a second process took the name of ", accept.worker.str()));
}

void CoordinatorHost::ToWorker(const core::WorkerId& worker, v1::CoordinatorMessage message) {
  if (auto it = by_worker_.find(worker); it != by_worker_.end()) Down(it->second, std::move(message));
}

void CoordinatorHost::Down(core::SessionId id, v1::CoordinatorMessage message) {
  Session& session = sessions_.at(id);
  if (!session.open || session.black_hole) return;
  if (auto cut = partitions_.find(session.agent); cut != partitions_.end() && world_.now < cut->second.second) return;
  const absl::Duration delay = world_.random.Duration(absl::Microseconds(100), absl::Milliseconds(20));
  session.last_down = std::max(session.last_down, world_.now + delay);
  world_.After(session.last_down - world_.now, [this, id, message = std::move(message)] {
    Session& one = sessions_.at(id);
    if (one.open && !one.black_hole) one.agent->Deliver(id, message);
  });
}

void CoordinatorHost::ArmDeadline() {
  const absl::Time next = core_->NextDeadline();
  if (next == armed_ || next == absl::InfiniteFuture()) return;
  armed_ = next;
  world_.After(std::max(absl::ZeroDuration(), next - world_.now), [this, life = life_, next] {
    if (life != life_ || !up() || armed_ != next) return;
    armed_ = absl::InfiniteFuture();
    Post(core::DeadlineReached{});
  });
}

}  // namespace athanor::sim

#include "worker/agent/agent_core.h"

#include <algorithm>

#include "absl/status/status.h"
#include "common/service/exit_codes.h"

namespace athanor::agent {
namespace {

constexpr absl::Duration kProgressPace = absl::Milliseconds(100);
constexpr absl::Duration kKillAgain = absl::Seconds(1);
constexpr size_t kRememberEnded = 8192;

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

void SetDuration(absl::Duration value, google::protobuf::Duration* proto) {
  value = std::max(value, absl::ZeroDuration());
  proto->set_seconds(absl::IDivDuration(value, absl::Seconds(1), &value));
  proto->set_nanos(static_cast<int32_t>(absl::IDivDuration(value, absl::Nanoseconds(1), &value)));
}

v1::FailureCause Preempted(const std::string& why) {
  v1::FailureCause cause;
  cause.set_kind(v1::PREEMPTED);
  cause.set_retryable(true);
  cause.set_detail(why);
  return cause;
}

}  // namespace

std::vector<Effect> AgentCore::OnSessionOpened(absl::Time now) {
  open_ = true;
  registered_ = false;
  v1::AgentMessage message;
  v1::Register& hello = *message.mutable_register_();
  hello.set_worker(identity_.name);
  hello.set_incarnation(incarnation_);
  hello.set_host(identity_.host);
  hello.set_slots(identity_.slots);
  hello.set_device(identity_.device);
  hello.set_version(identity_.version);
  hello.set_protocol(kProtocolVersion);
  hello.set_instance(identity_.instance);
  hello.mutable_labels()->insert(identity_.labels.begin(), identity_.labels.end());
  for (const auto& [key, rank] : ranks_) {
    v1::RunningRank& running = *hello.add_running();
    *running.mutable_id() = IdOf(key);
    running.set_pid(rank.pid);
    *running.mutable_slots() = rank.launch.slots();
    *running.mutable_progress() = rank.progress;
  }
  // The registration counts like a heartbeat: the lease starts when it was sent.
  heartbeats_sent_.clear();
  heartbeats_sent_[0] = now;
  return {SendMessage{std::move(message)}};
}

std::vector<Effect> AgentCore::OnSessionClosed(absl::Time) {
  open_ = registered_ = false;
  next_heartbeat_ = absl::InfiniteFuture();
  return {};
}

std::vector<Effect> AgentCore::OnMessage(const v1::CoordinatorMessage& message, absl::Time now) {
  switch (message.body_case()) {
    case v1::CoordinatorMessage::kRegistered: return TakeRegistered(message.registered(), now);
    case v1::CoordinatorMessage::kHeartbeatAck: {
      auto it = heartbeats_sent_.find(message.heartbeat_ack().number());
      if (it == heartbeats_sent_.end()) return {};
      lease_until_ = std::max(lease_until_ == absl::InfiniteFuture() ? absl::InfinitePast() : lease_until_, it->second + lease_);
      heartbeats_sent_.erase(heartbeats_sent_.begin(), std::next(it));
      return {};
    }
    case v1::CoordinatorMessage::kLaunch: return TakeLaunch(message.launch(), now);
    case v1::CoordinatorMessage::kStop: return TakeStop(message.stop(), now);
    case v1::CoordinatorMessage::kReply: return TakeReply(message.reply());
    case v1::CoordinatorMessage::kReadLog: return {ReadLogFile{message.read_log()}};
    case v1::CoordinatorMessage::kDeleteFiles: return {RemoveCheckpoint{message.delete_files()}};
    case v1::CoordinatorMessage::kRefused: return {CloseSession{message.refused().reason()}};
    case v1::CoordinatorMessage::kAck:
      while (!outbox_.empty() && outbox_.front().sequence() <= message.ack().sequence()) outbox_.pop_front();
      return {};
    default: return {};
  }
}

std::vector<Effect> AgentCore::TakeRegistered(const v1::Registered& message, absl::Time now) {
  std::vector<Effect> effects;
  registered_ = true;
  incarnation_ = message.incarnation();
  lease_ = FromProto(message.lease());
  heartbeat_interval_ = FromProto(message.heartbeat_interval());
  if (auto it = heartbeats_sent_.find(0); it != heartbeats_sent_.end()) lease_until_ = it->second + lease_;
  std::set<RankKey> keep;
  for (const v1::RankId& id : message.keep()) keep.insert(KeyOf(id));
  for (auto& [key, rank] : ranks_) {
    if (!keep.contains(key)) Kill(key, rank, "its generation is over", effects);
  }
  for (const v1::AgentMessage& waiting : outbox_) effects.push_back(SendMessage{waiting});
  for (const auto& [token, held] : calls_) {
    v1::AgentMessage call;
    *call.mutable_call() = held.call;
    effects.push_back(SendMessage{std::move(call)});
  }
  for (auto& [key, rank] : ranks_) rank.progress_dirty = true;
  SendHeartbeat(now, effects);
  return effects;
}

bool AgentCore::SlotsFree(const v1::LaunchRank& launch) const {
  for (const auto& [key, rank] : ranks_) {
    if (rank.phase == Phase::kWaitsForSlots) continue;
    for (const int32_t slot : launch.slots()) {
      if (std::find(rank.launch.slots().begin(), rank.launch.slots().end(), slot) != rank.launch.slots().end()) return false;
    }
  }
  return true;
}

std::vector<Effect> AgentCore::TakeLaunch(const v1::LaunchRank& message, absl::Time now) {
  const RankKey key = KeyOf(message.id());
  if (ranks_.contains(key) || ended_.contains(key)) return {};  // repeated
  std::vector<Effect> effects;
  if (leaving_) {
    v1::AgentMessage exited;
    *exited.mutable_exited()->mutable_id() = message.id();
    *exited.mutable_exited()->mutable_cause() = Preempted("the agent is stopping");
    SendDurable(std::move(exited), effects);
    return effects;
  }
  RankState rank;
  rank.launch = message;
  rank.heard_at = now;
  rank.progress.set_rank(key.rank);
  rank.progress.set_phase("starting");
  rank.progress.set_resumed_from_step(-1);
  rank.phase = SlotsFree(message) ? Phase::kStarting : Phase::kWaitsForSlots;
  const bool start = rank.phase == Phase::kStarting;
  ranks_.emplace(key, std::move(rank));
  if (start) effects.push_back(LaunchProcess{message});
  return effects;
}

void AgentCore::StartWaiting(std::vector<Effect>& effects) {
  for (auto& [key, rank] : ranks_) {
    if (rank.phase != Phase::kWaitsForSlots || !SlotsFree(rank.launch)) continue;
    rank.phase = Phase::kStarting;
    effects.push_back(LaunchProcess{rank.launch});
  }
}

void AgentCore::Kill(const RankKey& key, RankState& rank, const std::string& reason, std::vector<Effect>& effects) {
  if (rank.stop_reason.empty()) rank.stop_reason = reason;
  rank.asked_to_stop = rank.killed = true;
  rank.kill_at = absl::InfiniteFuture();
  effects.push_back(KillProcess{key, rank.dump_stacks});
  rank.dump_stacks = false;
}

std::vector<Effect> AgentCore::TakeStop(const v1::StopRank& message, absl::Time now) {
  std::vector<Effect> effects;
  const RankKey key = KeyOf(message.id());
  auto it = ranks_.find(key);
  if (it == ranks_.end()) {
    // Told before it was launched here, or after its end: make sure that it never starts.
    if (!ended_.contains(key)) {
      v1::AgentMessage exited;
      *exited.mutable_exited()->mutable_id() = message.id();
      *exited.mutable_exited()->mutable_cause() = Preempted("stopped before it was launched");
      ended_.insert(key);
      ended_order_.push_back(key);
      SendDurable(std::move(exited), effects);
    }
    return effects;
  }
  RankState& rank = it->second;
  rank.dump_stacks = message.dump_stacks();
  if (rank.phase == Phase::kWaitsForSlots) return OnProcessExited(key, Preempted(message.reason()), now);
  if (message.mode() == v1::SAVE_AND_LEAVE && !rank.killed) {
    rank.stop_reason = message.reason();
    rank.kill_at = std::min(rank.kill_at, now + FromProto(message.grace()));
    if (!rank.asked_to_stop) {
      rank.asked_to_stop = true;
      v1::ControlDirective directive;
      directive.set_stop(v1::SAVE_AND_LEAVE);
      directive.set_reason(message.reason());
      effects.push_back(DirectRank{key, std::move(directive)});
    }
  } else {
    Kill(key, rank, message.reason(), effects);
  }
  return effects;
}

std::vector<Effect> AgentCore::TakeReply(const v1::RankCallReply& message) {
  auto it = calls_.find(message.call());
  if (it == calls_.end()) return {};
  if (it->second.call.has_finish() && message.code() == 0) {
    if (auto rank = ranks_.find(it->second.key); rank != ranks_.end()) rank->second.said_finish = true;
  }
  calls_.erase(it);
  return {AnswerRank{message.call(), message}};
}

std::vector<Effect> AgentCore::OnProcessStarted(const RankKey& key, int64_t pid, absl::Time now) {
  std::vector<Effect> effects;
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return effects;
  it->second.phase = Phase::kRunning;
  it->second.pid = pid;
  it->second.heard_at = now;
  v1::AgentMessage message;
  *message.mutable_launched()->mutable_id() = IdOf(key);
  message.mutable_launched()->set_pid(pid);
  SendDurable(std::move(message), effects);
  if (it->second.killed) effects.push_back(KillProcess{key});
  return effects;
}

std::vector<Effect> AgentCore::OnProcessExited(const RankKey& key, std::optional<v1::FailureCause> cause, absl::Time now) {
  std::vector<Effect> effects;
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return effects;
  RankState& rank = it->second;
  // What we killed because we were asked to is no failure of the rank's own.
  if (cause.has_value() && rank.killed && cause->kind() == v1::SIGNAL) cause = Preempted(rank.stop_reason + " (stopped by its agent)");
  // The last report of a rank carries what happened between two heartbeats: a failed save, the final metrics.
  if (rank.progress_dirty && registered_) SendHeartbeat(now, effects);
  v1::AgentMessage message;
  v1::RankExited& exited = *message.mutable_exited();
  *exited.mutable_id() = IdOf(key);
  exited.set_finished(rank.said_finish);
  if (cause.has_value() && !(rank.said_finish && cause->kind() == v1::PREEMPTED)) *exited.mutable_cause() = *cause;
  SendDurable(std::move(message), effects);
  std::erase_if(calls_, [&](const auto& call) { return call.second.key == key; });
  ranks_.erase(it);
  if (ended_.insert(key).second) ended_order_.push_back(key);
  while (ended_order_.size() > kRememberEnded) {
    ended_.erase(ended_order_.front());
    ended_order_.pop_front();
  }
  StartWaiting(effects);
  return effects;
}

std::vector<Effect> AgentCore::OnRankCall(uint64_t token, const v1::RankCall& call, absl::Time now) {
  const RankKey key = KeyOf(call.id());
  auto it = ranks_.find(key);
  if (it == ranks_.end()) {
    v1::RankCallReply reply;
    reply.set_call(token);
    reply.set_code(static_cast<int32_t>(absl::StatusCode::kFailedPrecondition));
    reply.set_message("no such rank runs here");
    return {AnswerRank{token, std::move(reply)}};
  }
  it->second.heard_at = now;
  HeldCall held{call, key};
  held.call.set_call(token);
  calls_[token] = held;
  if (!registered_) return {};  // sent after the next registration
  v1::AgentMessage message;
  *message.mutable_call() = std::move(held.call);
  return {SendMessage{std::move(message)}};
}

void AgentCore::OnRankCallGone(uint64_t token) { calls_.erase(token); }

void AgentCore::OnRankReport(const RankKey& key, const v1::RankProgress& progress, absl::Time now) {
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return;
  it->second.progress = progress;
  it->second.progress.set_rank(key.rank);
  it->second.progress_dirty = true;
  it->second.heard_at = now;
  if (registered_) next_heartbeat_ = std::min(next_heartbeat_, std::max(now, last_heartbeat_ + kProgressPace));
}

std::vector<Effect> AgentCore::OnFilesDeleted(const v1::FilesDeleted& deleted) {
  std::vector<Effect> effects;
  v1::AgentMessage message;
  *message.mutable_files_deleted() = deleted;
  SendDurable(std::move(message), effects);
  return effects;
}

std::vector<Effect> AgentCore::OnStacks(const RankKey& key, const std::string& text) {
  if (!registered_) return {};
  v1::AgentMessage message;
  *message.mutable_stacks()->mutable_id() = IdOf(key);
  message.mutable_stacks()->set_text(text);
  return {SendMessage{std::move(message)}};
}

void AgentCore::SendDurable(v1::AgentMessage message, std::vector<Effect>& effects) {
  message.set_sequence(next_sequence_++);
  outbox_.push_back(message);  // bounded by what runs here: a few per rank
  if (registered_) effects.push_back(SendMessage{std::move(message)});
}

void AgentCore::SendHeartbeat(absl::Time now, std::vector<Effect>& effects) {
  v1::AgentMessage message;
  v1::Heartbeat& heartbeat = *message.mutable_heartbeat();
  heartbeat.set_number(++heartbeat_number_);
  heartbeat.set_leaving(leaving_);
  for (auto& [key, rank] : ranks_) {
    if (!rank.progress_dirty) continue;
    rank.progress_dirty = false;
    v1::RankReport& report = *heartbeat.add_reports();
    *report.mutable_id() = IdOf(key);
    *report.mutable_progress() = rank.progress;
    SetDuration(now - rank.heard_at, report.mutable_age());
  }
  heartbeats_sent_[heartbeat_number_] = now;
  while (heartbeats_sent_.size() > 1024) heartbeats_sent_.erase(heartbeats_sent_.begin());
  last_heartbeat_ = now;
  next_heartbeat_ = now + heartbeat_interval_;
  effects.push_back(SendMessage{std::move(message)});
}

std::vector<Effect> AgentCore::OnTick(absl::Time now) {
  std::vector<Effect> effects;
  if (lease_until_ != absl::InfiniteFuture() && now >= lease_until_) {
    if (!ranks_.empty()) ++lease_expiries_;
    for (auto& [key, rank] : ranks_) Kill(key, rank, "the agent's lease is over: the coordinator may have given its slots away", effects);
    lease_until_ = absl::InfiniteFuture();
  }
  if (registered_ && now >= next_heartbeat_) SendHeartbeat(now, effects);
  for (auto& [key, rank] : ranks_) {
    if (now < rank.kill_at) continue;
    Kill(key, rank, "did not leave in time", effects);
    rank.kill_at = now + kKillAgain;
  }
  return effects;
}

std::vector<Effect> AgentCore::OnShutdown(absl::Duration grace, absl::Time now) {
  std::vector<Effect> effects;
  const bool again = leaving_;
  leaving_ = true;
  if (registered_) SendHeartbeat(now, effects);
  for (auto& [key, rank] : ranks_) {
    if (again) {
      Kill(key, rank, "the agent is stopping", effects);
      continue;
    }
    rank.kill_at = std::min(rank.kill_at, now + grace);
    if (rank.asked_to_stop) continue;
    rank.asked_to_stop = true;
    rank.stop_reason = "the agent is stopping";
    v1::ControlDirective directive;
    directive.set_stop(v1::SAVE_AND_LEAVE);
    directive.set_reason(rank.stop_reason);
    effects.push_back(DirectRank{key, std::move(directive)});
  }
  return effects;
}

absl::Time AgentCore::NextDeadline() const {
  absl::Time next = std::min(next_heartbeat_, lease_until_);
  for (const auto& [key, rank] : ranks_) next = std::min(next, rank.kill_at);
  return next;
}

}  // namespace athanor::agent

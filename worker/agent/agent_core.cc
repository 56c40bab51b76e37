#include "worker/agent/agent_core.h"

#include <algorithm>
#include <csignal>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"
#include "common/service/protocol_version.h"

namespace athanor::agent {
namespace {

constexpr absl::Duration kKillAgain = absl::Seconds(1);
constexpr absl::Duration kRegisterLimit = absl::Seconds(10);
constexpr size_t kReportsPerBeat = 128, kCallsPerRank = 64;
constexpr char kStrictFencing[] = "strict";
constexpr size_t kMetricsPerRank = 64, kNameBytes = 64, kErrorBytes = 1024;

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

// A rank runs the user's code: what it says is cut to what the protocol allows.
v1::RankProgress Bounded(const RankKey& key, v1::RankProgress progress) {
  progress.set_rank(key.rank);
  progress.set_phase(CutUtf8(progress.phase(), kNameBytes));
  progress.set_checkpoint_error(CutUtf8(progress.checkpoint_error(), kErrorBytes));
  auto& metrics = *progress.mutable_metrics();
  for (auto it = metrics.begin(); it != metrics.end();) {
    it = it->first.size() > kNameBytes ? metrics.erase(it) : std::next(it);
  }
  while (metrics.size() > kMetricsPerRank) metrics.erase(metrics.begin());
  return progress;
}

}  // namespace

std::vector<Effect> AgentCore::OnSessionOpened(absl::Time now) {
  open_ = true;
  registered_ = closing_ = false;
  register_by_ = now + kRegisterLimit;
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
  hello.set_home(identity_.home);
  hello.mutable_labels()->insert(identity_.labels.begin(), identity_.labels.end());
  for (const auto& [key, rank] : ranks_) {
    v1::RunningRank& running = *hello.add_running();
    *running.mutable_id() = IdOf(key);
    running.set_pid(rank.pid);
    *running.mutable_slots() = rank.launch.slots();
    *running.mutable_progress() = rank.progress;
    running.mutable_progress()->clear_metrics();  // the next heartbeat has them; this message has all ranks
  }
  lease_.Ask(now);
  return {SendMessage{std::move(message)}};
}

std::vector<Effect> AgentCore::OnSessionClosed(absl::Time) {
  open_ = registered_ = closing_ = false;
  register_by_ = absl::InfiniteFuture();
  lease_.Pause();
  return {};
}

void AgentCore::Close(const std::string& reason, std::vector<Effect>& effects) {
  registered_ = false;
  register_by_ = absl::InfiniteFuture();
  lease_.Pause();
  if (!open_ || closing_) return;
  closing_ = true;
  effects.push_back(CloseSession{reason});
}

void AgentCore::TakeAck(const v1::HeartbeatAck& message, absl::Time now) {
  if (!lease_.Acknowledge(message.number(), now)) return;
  if (leaving_heartbeat_ != 0 && message.number() >= leaving_heartbeat_) leaving_told_ = true;
}

std::vector<Effect> AgentCore::OnMessage(const v1::CoordinatorMessage& message, absl::Time now) {
  std::vector<Effect> effects;
  if (!open_ || closing_) return effects;
  if (!registered_ && !message.has_registered() && !message.has_refused()) {
    Close("the coordinator spoke before it answered the registration", effects);
    return effects;
  }
  switch (message.body_case()) {
    case v1::CoordinatorMessage::kRegistered:
      return TakeRegistered(message.registered(), now);
    case v1::CoordinatorMessage::kHeartbeatAck:
      TakeAck(message.heartbeat_ack(), now);
      return {};
    case v1::CoordinatorMessage::kLaunch:
      return TakeLaunch(message.launch(), now);
    case v1::CoordinatorMessage::kStop:
      return TakeStop(message.stop(), now);
    case v1::CoordinatorMessage::kReply:
      return TakeReply(message.reply());
    case v1::CoordinatorMessage::kReadLog:
      return {ReadLogFile{message.read_log()}};
    case v1::CoordinatorMessage::kDeleteFiles:
      return {RemoveCheckpoint{message.delete_files()}};
    case v1::CoordinatorMessage::kRefused:
      TakeRefused(message.refused(), now, effects);
      return effects;
    case v1::CoordinatorMessage::kAck:
      outbox_.Acknowledge(message.ack().sequence());
      return {};
    default:
      return {};
  }
}

std::vector<Effect> AgentCore::TakeRegistered(const v1::Registered& message, absl::Time now) {
  std::vector<Effect> effects;
  if (registered_) return effects;  // repeated
  if (FromProto(message.lease()) <= absl::ZeroDuration()) {
    Close("the coordinator gave no lease", effects);
    return effects;
  }
  registered_ = true;
  register_by_ = absl::InfiniteFuture();
  incarnation_ = message.incarnation();
  lease_.Grant(FromProto(message.lease()), FromProto(message.heartbeat_interval()));
  std::set<RankKey> keep;
  for (const v1::RankId& id : message.keep()) keep.insert(KeyOf(id));
  // In order: what was kept, then what follows from this registration.
  for (const v1::AgentMessage& waiting : outbox_.messages()) effects.push_back(SendMessage{waiting});
  for (const RankKey& key : Keys()) {
    if (!keep.contains(key))
      Kill(key, "the coordinator does not count on it: its generation was replaced, or is unknown there", now, effects);
  }
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
      if (std::find(rank.launch.slots().begin(), rank.launch.slots().end(), slot) != rank.launch.slots().end())
        return false;
    }
  }
  return true;
}

std::vector<Effect> AgentCore::TakeLaunch(const v1::LaunchRank& message, absl::Time now) {
  const RankKey key = KeyOf(message.id());
  if (ranks_.contains(key) || outbox_.ReportsEndOf(key)) return {};  // repeated
  std::vector<Effect> effects;
  const int32_t newest = memory_.NewestGeneration(key.job);
  if (leaving_ || memory_.Ended(key) || newest > key.generation) {
    // An end that was acknowledged is asked for again out of records that are older than it.
    const std::string old = absl::StrCat("generation ", newest, " has run before: the coordinator's records are older");
    ReportStopped(message.id(), leaving_ ? "the agent is stopping" : old, effects);
    return effects;
  }
  memory_.SawGeneration(key.job, key.generation);
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

void AgentCore::Kill(const RankKey& key, const std::string& reason, absl::Time now, std::vector<Effect>& effects) {
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return;
  RankState& rank = it->second;
  if (rank.phase == Phase::kWaitsForSlots) {
    for (Effect& effect : OnProcessExited(key, Preempted(reason), now)) effects.push_back(std::move(effect));
    return;
  }
  if (rank.stop_reason.empty()) rank.stop_reason = reason;
  rank.asked_to_stop = rank.killed = true;
  rank.kill_at = absl::InfiniteFuture();
  effects.push_back(KillProcess{key, rank.dump_stacks});
  rank.dump_stacks = false;
}

void AgentCore::AskToLeave(const RankKey& key, RankState& rank, const std::string& reason,
                           std::vector<Effect>& effects) {
  if (rank.asked_to_stop) return;
  rank.asked_to_stop = true;
  rank.stop_reason = reason;
  v1::ControlDirective directive;
  directive.set_stop(v1::SAVE_AND_LEAVE);
  directive.set_reason(reason);
  effects.push_back(DirectRank{key, std::move(directive)});
}

// For a rank that never had a process here.
void AgentCore::ReportStopped(const v1::RankId& id, const std::string& reason, std::vector<Effect>& effects) {
  v1::AgentMessage message;
  v1::RankExited& exited = *message.mutable_exited();
  *exited.mutable_id() = id;
  *exited.mutable_cause() = Preempted(reason);
  exited.mutable_cause()->set_rank(id.rank());
  exited.mutable_cause()->set_worker(identity_.name);
  exited.set_newest_generation(memory_.NewestGeneration(id.job()));
  memory_.AddEnded(KeyOf(id));
  SendDurable(std::move(message), effects);
}

std::vector<RankKey> AgentCore::Keys() const {
  std::vector<RankKey> keys;
  keys.reserve(ranks_.size());
  for (const auto& [key, rank] : ranks_) keys.push_back(key);
  return keys;
}

std::vector<Effect> AgentCore::TakeStop(const v1::StopRank& message, absl::Time now) {
  std::vector<Effect> effects;
  const RankKey key = KeyOf(message.id());
  auto it = ranks_.find(key);
  if (it == ranks_.end()) {
    // Told before it was launched here: make sure that it never starts. Told after its end: say it again, unless the
    // report is under way.
    if (!outbox_.ReportsEndOf(key))
      ReportStopped(message.id(), memory_.Ended(key) ? "has ended before" : "stopped before it was launched", effects);
    return effects;
  }
  RankState& rank = it->second;
  rank.dump_stacks = message.dump_stacks();
  const bool save = message.mode() == v1::SAVE_AND_LEAVE && rank.phase == Phase::kRunning;
  if (!save) {
    Kill(key, message.reason(), now, effects);
  } else if (!rank.killed) {
    rank.kill_at = std::min(rank.kill_at, now + FromProto(message.grace()));
    AskToLeave(key, rank, message.reason(), effects);
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

std::vector<Effect> AgentCore::OnProcessExited(const RankKey& key, std::optional<v1::FailureCause> cause,
                                               absl::Time now) {
  std::vector<Effect> effects;
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return effects;
  RankState& rank = it->second;
  if (cause.has_value()) {
    // What we killed because we were asked to is no failure of the rank's own.
    if (rank.killed && cause->signal() == SIGKILL) {
      cause->set_kind(rank.stop_kind);
      cause->set_retryable(true);
      cause->set_detail(absl::StrCat(rank.stop_reason, " (stopped by its agent)"));
    }
    cause->set_rank(key.rank);
    cause->set_worker(identity_.name);
  }
  // The last report of a rank carries what happened between two heartbeats: a failed save, the final metrics.
  if (rank.progress_dirty && registered_) SendHeartbeat(now, effects);
  v1::AgentMessage message;
  v1::RankExited& exited = *message.mutable_exited();
  *exited.mutable_id() = IdOf(key);
  exited.set_finished(rank.said_finish);
  exited.set_newest_generation(memory_.NewestGeneration(key.job));
  if (cause.has_value() && !(rank.said_finish && cause->kind() == v1::PREEMPTED)) *exited.mutable_cause() = *cause;
  SendDurable(std::move(message), effects);
  std::erase_if(calls_, [&](const auto& call) { return call.second.key == key; });
  ranks_.erase(it);
  memory_.AddEnded(key);
  StartWaiting(effects);
  return effects;
}

std::vector<Effect> AgentCore::OnRankCall(uint64_t token, const v1::RankCall& call, absl::Time now) {
  const RankKey key = KeyOf(call.id());
  auto it = ranks_.find(key);
  const auto held = std::count_if(calls_.begin(), calls_.end(), [&](const auto& one) { return one.second.key == key; });
  if (it == ranks_.end() || static_cast<size_t>(held) >= kCallsPerRank) {
    const bool unknown = it == ranks_.end();
    v1::RankCallReply reply;
    reply.set_call(token);
    reply.set_code(
        static_cast<int32_t>(unknown ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kResourceExhausted));
    reply.set_message(unknown ? absl::StrCat("no rank ", Show(key), " runs here")
                              : absl::StrCat("rank ", Show(key), " has ", held, " calls waiting"));
    return {AnswerRank{token, std::move(reply)}};
  }
  it->second.heard_at = now;
  v1::AgentMessage message;
  *message.mutable_call() = call;
  message.mutable_call()->set_call(token);
  calls_[token] = {message.call(), key};
  if (!registered_) return {};  // sent after the next registration
  return {SendMessage{std::move(message)}};
}

void AgentCore::OnRankCallGone(uint64_t token) {
  calls_.erase(token);
}

void AgentCore::OnRankReport(const RankKey& key, const v1::RankProgress& progress, absl::Time now) {
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return;
  it->second.progress = Bounded(key, progress);
  it->second.progress_dirty = true;
  it->second.heard_at = now;
  if (registered_) lease_.Hurry(now);
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
  const v1::AgentMessage& kept = outbox_.Add(std::move(message));
  if (registered_) effects.push_back(SendMessage{kept});
}

void AgentCore::SendHeartbeat(absl::Time now, std::vector<Effect>& effects) {
  v1::AgentMessage message;
  v1::Heartbeat& heartbeat = *message.mutable_heartbeat();
  heartbeat.set_leaving(leaving_);
  bool more = false;
  for (auto& [key, rank] : ranks_) {
    if (!rank.progress_dirty) continue;
    more = static_cast<size_t>(heartbeat.reports_size()) >= kReportsPerBeat;  // keeps the message small
    if (more) break;
    rank.progress_dirty = false;
    v1::RankReport& report = *heartbeat.add_reports();
    *report.mutable_id() = IdOf(key);
    *report.mutable_progress() = rank.progress;
    SetDuration(now - rank.heard_at, report.mutable_age());
  }
  heartbeat.set_number(lease_.Beat(now, more));
  if (leaving_ && leaving_heartbeat_ == 0) leaving_heartbeat_ = heartbeat.number();
  effects.push_back(SendMessage{std::move(message)});
}

void AgentCore::OnLeaseExtended(absl::Time sent) {
  if (registered_) lease_.Extend(sent);
}

void AgentCore::ExpireLease(absl::Time now, std::vector<Effect>& effects) {
  lease_.End();
  if (!ranks_.empty()) ++lease_expiries_;
  for (const RankKey& key : Keys()) {
    RankState& rank = ranks_.at(key);
    if (rank.launch.spec().fencing() != kStrictFencing) continue;
    if (!rank.killed) rank.stop_kind = v1::NODE_LOST;
    Kill(key, "fencing: strict: the agent's lease is over, its slots may be given away", now, effects);
  }
  Close("the lease is over", effects);
}

void AgentCore::TakeRefused(const v1::Refused& message, absl::Time now, std::vector<Effect>& effects) {
  for (const RankKey& key : message.lease_over() ? Keys() : std::vector<RankKey>()) {
    RankState& rank = ranks_.at(key);
    if (!rank.killed) rank.stop_kind = v1::NODE_LOST;
    Kill(key, absl::StrCat("it was replaced: ", message.reason()), now, effects);
  }
  Close(message.reason(), effects);
}

std::vector<Effect> AgentCore::OnTick(absl::Time now) {
  std::vector<Effect> effects;
  if (now >= lease_.until()) ExpireLease(now, effects);
  if (now >= register_by_) Close("the coordinator did not answer the registration", effects);
  if (registered_ && now >= lease_.next_beat()) SendHeartbeat(now, effects);
  for (const RankKey& key : Keys()) {
    auto it = ranks_.find(key);
    if (it == ranks_.end() || now < it->second.kill_at) continue;
    Kill(key, "did not leave in time", now, effects);
    if (it = ranks_.find(key); it != ranks_.end()) it->second.kill_at = now + kKillAgain;
  }
  return effects;
}

std::vector<Effect> AgentCore::OnShutdown(absl::Duration grace, absl::Time now) {
  std::vector<Effect> effects;
  const bool again = leaving_;
  leaving_ = true;
  if (registered_) SendHeartbeat(now, effects);
  for (const RankKey& key : Keys()) {
    auto it = ranks_.find(key);
    if (it == ranks_.end()) continue;
    RankState& rank = it->second;
    if (again || rank.phase == Phase::kWaitsForSlots) {
      Kill(key, "the agent is stopping", now, effects);
      continue;
    }
    if (rank.killed) continue;
    rank.kill_at = std::min(rank.kill_at, now + grace);
    AskToLeave(key, rank, "the agent is stopping", effects);
  }
  return effects;
}

absl::Time AgentCore::NextDeadline() const {
  absl::Time next = std::min({lease_.next_beat(), lease_.until(), register_by_});
  for (const auto& [key, rank] : ranks_) next = std::min(next, rank.kill_at);
  return next;
}

}  // namespace athanor::agent

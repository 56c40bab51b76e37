// What an agent decides: which ranks run, what must be told to the coordinator, when the lease is over. Values in, effects out; no
// clock, thread, socket or process inside. Not thread-safe; owned by AgentLoop's thread.
//
// Durable messages (launched, exited, files deleted) carry a sequence and are repeated after each reconnect until they are acknowledged;
// ranks' calls are repeated until they are answered. All of them are idempotent for the coordinator.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "athanor/v1/agent_service.pb.h"
#include "athanor/v1/trainer_service.pb.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

// ---- effects ----
struct SendMessage { v1::AgentMessage message; };
struct LaunchProcess { v1::LaunchRank launch; };
struct KillProcess { RankKey key; bool dump_stacks = false; };
struct DirectRank { RankKey key; v1::ControlDirective directive; };  // pushed over the rank's Control stream
struct AnswerRank { uint64_t token = 0; v1::RankCallReply reply; };
struct ReadLogFile { v1::ReadLog request; };
struct RemoveCheckpoint { v1::DeleteFiles request; };
struct CloseSession { std::string reason; };
using Effect = std::variant<SendMessage, LaunchProcess, KillProcess, DirectRank, AnswerRank, ReadLogFile, RemoveCheckpoint, CloseSession>;

struct AgentIdentity {
  std::string name, instance, host, device, version;
  int32_t slots = 1;
  std::map<std::string, std::string> labels;
};

class AgentCore {
 public:
  explicit AgentCore(AgentIdentity identity) : identity_(std::move(identity)) {}

  std::vector<Effect> OnSessionOpened(absl::Time now);  // sends Register
  std::vector<Effect> OnSessionClosed(absl::Time now);
  std::vector<Effect> OnMessage(const v1::CoordinatorMessage& message, absl::Time now);
  std::vector<Effect> OnProcessStarted(const RankKey& key, int64_t pid, absl::Time now);
  // `cause` absent: exit code 0. For a launch that failed: the cause says why.
  std::vector<Effect> OnProcessExited(const RankKey& key, std::optional<v1::FailureCause> cause, absl::Time now);
  std::vector<Effect> OnRankCall(uint64_t token, const v1::RankCall& call, absl::Time now);
  void OnRankCallGone(uint64_t token);  // the rank does not wait any more
  void OnRankReport(const RankKey& key, const v1::RankProgress& progress, absl::Time now);
  std::vector<Effect> OnFilesDeleted(const v1::FilesDeleted& deleted);
  std::vector<Effect> OnStacks(const RankKey& key, const std::string& text);
  std::vector<Effect> OnTick(absl::Time now);
  // Asks every rank to save and leave; a second call kills them.
  std::vector<Effect> OnShutdown(absl::Duration grace, absl::Time now);

  absl::Time NextDeadline() const;
  bool registered() const { return registered_; }
  bool Runs(const RankKey& key) const { return ranks_.contains(key); }
  bool Ended(const RankKey& key) const { return ended_.contains(key); }
  size_t rank_count() const { return ranks_.size(); }
  size_t outbox_size() const { return outbox_.size(); }
  int64_t lease_expiries() const { return lease_expiries_; }
  bool leaving() const { return leaving_; }

 private:
  enum class Phase : uint8_t { kWaitsForSlots, kStarting, kRunning };
  struct RankState {
    v1::LaunchRank launch;
    Phase phase = Phase::kStarting;
    int64_t pid = 0;
    bool said_finish = false;
    bool asked_to_stop = false;
    bool killed = false;
    bool dump_stacks = false;
    std::string stop_reason;
    absl::Time kill_at = absl::InfiniteFuture();
    v1::RankProgress progress;
    bool progress_dirty = false;
    absl::Time heard_at;
  };
  struct HeldCall {
    v1::RankCall call;
    RankKey key;
  };

  std::vector<Effect> TakeRegistered(const v1::Registered& message, absl::Time now);
  std::vector<Effect> TakeLaunch(const v1::LaunchRank& message, absl::Time now);
  std::vector<Effect> TakeStop(const v1::StopRank& message, absl::Time now);
  std::vector<Effect> TakeReply(const v1::RankCallReply& message);
  void Kill(const RankKey& key, RankState& rank, const std::string& reason, std::vector<Effect>& effects);
  void SendDurable(v1::AgentMessage message, std::vector<Effect>& effects);
  void SendHeartbeat(absl::Time now, std::vector<Effect>& effects);
  bool SlotsFree(const v1::LaunchRank& launch) const;
  void StartWaiting(std::vector<Effect>& effects);

  const AgentIdentity identity_;
  uint64_t incarnation_ = 0;
  bool open_ = false;
  bool registered_ = false;
  bool leaving_ = false;
  absl::Duration lease_ = absl::InfiniteDuration();
  absl::Duration heartbeat_interval_ = absl::Seconds(1);
  absl::Time lease_until_ = absl::InfiniteFuture();
  absl::Time next_heartbeat_ = absl::InfiniteFuture();
  absl::Time last_heartbeat_ = absl::InfinitePast();
  uint64_t heartbeat_number_ = 0;
  std::map<uint64_t, absl::Time> heartbeats_sent_;
  std::map<RankKey, RankState> ranks_;
  std::set<RankKey> ended_;          // so that a repeated launch is taken for what it is
  std::deque<RankKey> ended_order_;
  std::deque<v1::AgentMessage> outbox_;
  uint64_t next_sequence_ = 1;
  std::map<uint64_t, HeldCall> calls_;  // by token
  int64_t lease_expiries_ = 0;
};

}  // namespace athanor::agent

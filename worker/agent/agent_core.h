// What an agent decides: which ranks run, what must be told to the coordinator, when the lease is over. Values in,
// effects out; no clock, thread, socket or process inside. Not thread-safe; owned by AgentLoop's thread.
//
// Durable messages (launched, exited, files deleted) carry a sequence and are repeated after each reconnect until they
// are acknowledged; ranks' calls are repeated until they are answered. All of them are idempotent for the coordinator.
// Heartbeats carry the latest progress of the ranks that changed and are never queued.
//
// The lease runs from the moment at which the last acknowledged heartbeat was sent. When it is over the session is
// closed: what the coordinator says next must be the answer to a new registration. Ranks train on until the coordinator
// says that they were replaced; their generation fences what they commit and write meanwhile. Those of jobs with strict
// fencing are killed at the lease's end.
//
//   AgentCore core({.name = "node-1", .instance = "…", .slots = 2});
//   Perform(core.OnSessionOpened(now));            // {SendMessage{Register}}
//   Perform(core.OnMessage(registered, now));      // {SendMessage{Heartbeat}}
//   Perform(core.OnMessage(launch, now));          // {LaunchProcess}
//   Perform(core.OnProcessStarted(key, pid, now)); // {SendMessage{RankLaunched}}
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "athanor/v1/agent_service.pb.h"
#include "athanor/v1/trainer_service.pb.h"
#include "worker/agent/lease.h"
#include "worker/agent/outbox.h"
#include "worker/agent/rank_key.h"
#include "worker/agent/rank_memory.h"

namespace athanor::agent {

// ---- effects ----
struct SendMessage {
  v1::AgentMessage message;
};
struct LaunchProcess {
  v1::LaunchRank launch;
};
struct KillProcess {
  RankKey key;
  bool dump_stacks = false;
};
struct DirectRank {
  RankKey key;
  v1::ControlDirective directive;
};  // pushed over the rank's Control stream
struct AnswerRank {
  uint64_t token = 0;
  v1::RankCallReply reply;
};
struct ReadLogFile {
  v1::ReadLog request;
};
struct RemoveCheckpoint {
  v1::DeleteFiles request;
};
struct CloseSession {
  std::string reason;
};
using Effect = std::variant<SendMessage, LaunchProcess, KillProcess, DirectRank, AnswerRank, ReadLogFile,
                            RemoveCheckpoint, CloseSession>;

struct AgentIdentity {
  std::string name, instance, host, device, version;
  int32_t slots = 1;
  std::map<std::string, std::string> labels;
  std::string home;  // of the locked work folder
};

class AgentCore {
 public:
  explicit AgentCore(AgentIdentity identity) : identity_(std::move(identity)) {}

  // The work folder is locked; before the first session.
  void SetHome(std::string home) { identity_.home = std::move(home); }
  std::vector<Effect> OnSessionOpened(absl::Time now);  // sends Register
  std::vector<Effect> OnSessionClosed(absl::Time now);
  std::vector<Effect> OnMessage(const v1::CoordinatorMessage& message, absl::Time now);
  std::vector<Effect> OnProcessStarted(const RankKey& key, int64_t pid, absl::Time now);
  // `cause` absent: exit code 0. For a launch that failed: the cause says why.
  std::vector<Effect> OnProcessExited(const RankKey& key, std::optional<v1::FailureCause> cause, absl::Time now);
  std::vector<Effect> OnRankCall(uint64_t token, const v1::RankCall& call, absl::Time now);
  void OnRankCallGone(uint64_t token);  // the rank does not wait any more
  // A heartbeat that the loop did not make, sent at `sent`, was acknowledged.
  void OnLeaseExtended(absl::Time sent);
  // `generation` of `job` is known to have run, here or elsewhere.
  void SawGeneration(const std::string& job, int32_t generation) { memory_.SawGeneration(job, generation); }
  void OnRankReport(const RankKey& key, const v1::RankProgress& progress, absl::Time now);
  std::vector<Effect> OnFilesDeleted(const v1::FilesDeleted& deleted);
  std::vector<Effect> OnStacks(const RankKey& key, const std::string& text);
  // At or after NextDeadline().
  std::vector<Effect> OnTick(absl::Time now);
  // Asks every rank to save and leave; a second call kills them.
  std::vector<Effect> OnShutdown(absl::Duration grace, absl::Time now);

  absl::Time NextDeadline() const;
  absl::Time lease_until() const { return lease_.until(); }
  absl::Duration heartbeat_interval() const { return lease_.interval(); }
  absl::Time last_heartbeat() const { return lease_.last_beat(); }
  bool registered() const { return registered_; }
  bool Runs(const RankKey& key) const { return ranks_.contains(key); }
  bool Ended(const RankKey& key) const { return memory_.Ended(key); }
  size_t rank_count() const { return ranks_.size(); }
  std::vector<RankKey> ranks() const { return Keys(); }
  size_t outbox_size() const { return outbox_.messages().size(); }
  int64_t outbox_dropped() const { return outbox_.dropped(); }
  int64_t lease_expiries() const { return lease_expiries_; }
  bool leaving() const { return leaving_; }
  // Everything that must be told before leaving has arrived, or there is nobody to tell.
  bool OutboxDrained() const { return !registered_ || (outbox_.messages().empty() && leaving_told_); }
  // From heartbeat to acknowledgement, of those since the last call.
  std::vector<absl::Duration> TakeRoundTrips() { return lease_.TakeRoundTrips(); }

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
    v1::CauseKind stop_kind = v1::PREEMPTED;
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
  void TakeAck(const v1::HeartbeatAck& message, absl::Time now);
  void Close(const std::string& reason, std::vector<Effect>& effects);
  void ExpireLease(absl::Time now, std::vector<Effect>& effects);
  void TakeRefused(const v1::Refused& message, absl::Time now, std::vector<Effect>& effects);
  // Ends a rank that has a process by SIGKILL, one that has none yet at once.
  void Kill(const RankKey& key, const std::string& reason, absl::Time now, std::vector<Effect>& effects);
  void AskToLeave(const RankKey& key, RankState& rank, const std::string& reason, std::vector<Effect>& effects);
  void ReportStopped(const v1::RankId& id, const std::string& reason, std::vector<Effect>& effects);
  std::vector<RankKey> Keys() const;
  void SendDurable(v1::AgentMessage message, std::vector<Effect>& effects);
  void SendHeartbeat(absl::Time now, std::vector<Effect>& effects);
  bool SlotsFree(const v1::LaunchRank& launch) const;
  void StartWaiting(std::vector<Effect>& effects);

  AgentIdentity identity_;
  uint64_t incarnation_ = 0;
  bool open_ = false;
  bool registered_ = false;
  bool closing_ = false;  // the session is being closed: nothing that it still says counts
  bool leaving_ = false;
  bool leaving_told_ = false;
  uint64_t leaving_heartbeat_ = 0;
  absl::Time register_by_ = absl::InfiniteFuture();
  Lease lease_;
  std::map<RankKey, RankState> ranks_;
  RankMemory memory_;
  Outbox outbox_;
  std::map<uint64_t, HeldCall> calls_;  // by token
  int64_t lease_expiries_ = 0;
};

}  // namespace athanor::agent

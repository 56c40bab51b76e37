// The inside of CoordinatorCore: state, indexes and the effects of the step in progress. One .cc file per subject:
//   machine.cc (dispatch, records, deadlines)  job_verbs.cc  scheduling.cc  generation_events.cc  hang.cc
//   worker_events.cc  quarantine.cc  checkpoint_ledger.cc  lost_checkpoints.cc  goodput.cc
// What has a state of its own is a part with its own header: timers, dirty_records, request_memory, finished_jobs,
// event_sums, job_queue.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "server/core/coordinator_core.h"
#include "server/core/dirty_records.h"
#include "server/core/event_sums.h"
#include "server/core/finished_jobs.h"
#include "server/core/job_queue.h"
#include "server/core/placement.h"
#include "server/core/recovered_state.h"
#include "server/core/request_memory.h"
#include "server/core/restart_policy.h"
#include "server/core/state_machines.h"
#include "server/core/timers.h"

namespace athanor::core {

class Machine {
 public:
  Machine(CoreOptions options, ClusterState recovered, absl::Time now);
  std::vector<Effect> Apply(const Event& event, absl::Time now);
  std::vector<Effect> Recover(absl::Time now);
  absl::Time NextDeadline() const { return timers_.Next(); }
  int32_t QueuePosition(const JobId& job) const;
  std::string WhyItWaits(const JobEntry& job) const;

  const CoreOptions options;
  ClusterState state;

 private:
  // ---- machine.cc ----
  void Handle(const SubmitJob& event);
  void Handle(const CancelJob& event);
  void Handle(const SuspendJob& event);
  void Handle(const ResumeJob& event);
  void Handle(const DeleteJob& event);
  void Handle(const TagCheckpoint& event);
  void Handle(const UntagCheckpoint& event);
  void Handle(const DeleteCheckpoint& event);
  void Handle(const DrainWorker& event);
  void Handle(const UndrainWorker& event);
  void Handle(const WorkerRegistered& event);
  void Handle(const WorkerHeartbeat& event);
  void Handle(const SessionLost& event);
  void Handle(const RankLaunched& event);
  void Handle(const RankExited& event);
  void Handle(const RankStacks& event);
  void Handle(const RankJoined& event);
  void Handle(const ShardCommitted& event);
  void Handle(const ManifestCommitted& event);
  void Handle(const EvaluationReported& event);
  void Handle(const CheckpointAbandoned& event);
  void Handle(const RankFinished& event);
  void Handle(const CheckpointDamaged& event);
  void Handle(const FilesDeleted& event);
  void Handle(const RecordPutAside& event);
  void Handle(const DeadlineReached& event);
  void Handle(const ClockGap& event);
  void TellRepairs();
  std::vector<Effect> TakeEffects();
  void RecoverGenerations();
  void Fire(const RetryTimer& timer);
  void Fire(const GenerationTimer& timer);
  void Fire(const HangTimer& timer);
  void Fire(const WorkerTimer& timer);
  void Fire(const QuarantineTimer& timer);
  void Fire(const RequestsTimer&) { ForgetOldRequests(); }
  void Fire(const FinishedJobsTimer&) { ForgetOldJobs(); }
  void Fire(const StrictJobsTimer&) { CapacityChanged(); }
  void Emit(Effect effect) { effects_.push_back(std::move(effect)); }
  void AddEvent(JobEntry& job, const std::string& type, const std::string& message, Generation generation = 0,
                Rank rank = -1);
  void SumUp(JobEntry& job, const std::string& type, const std::string& message, Generation generation, Rank rank);
  void SaySums(JobEntry& job);
  JobEntry* FindJob(const JobId& id);
  GenerationEntry* FindGeneration(const JobId& id, Generation number);
  GenerationEntry* LiveGeneration(const JobEntry& job);

  // ---- job_verbs.cc ----
  // True when the request was seen before (and has been answered) or is refused.
  bool AnsweredBefore(CallId call, const RequestKey& request);
  void Remember(const RequestKey& request, const JobId& job, const std::string& message, Step step = -1);
  void ReplyError(CallId call, absl::Status status);
  void ReplyDone(CallId call, const RequestKey& request, const JobEntry& job, const std::string& message);
  JobEntry* ResolveForVerb(CallId call, const RequestKey& request, const std::string& reference);
  absl::Status ResolveParent(const JobSpec& spec, JobId& parent, Step& step) const;
  void ReplyDryRun(const SubmitJob& event);
  void MoveJob(JobEntry& job, JobTrigger trigger, const std::string& reason);
  void FinishJob(JobEntry& job);
  static constexpr JobState kNoJobState{};  // of a job that is gone
  void Lighten(JobEntry& job);
  void ForgetOldJobs();
  void DropJob(const JobId& id);
  void ForgetOldRequests();

  // ---- scheduling.cc ----
  void Enqueue(JobEntry& job);
  void Dequeue(const JobEntry& job);
  void CapacityChanged();
  void Schedule();
  void SchedulePass(size_t devices);
  bool MustWait(const JobId& id);
  void Park(JobEntry& job);
  void Unpark();
  PlacementResult PlaceJob(const JobEntry& job, const std::vector<FreeSlots>& free) const;
  bool HoldStrict(JobEntry& job);
  bool TryPlace(JobEntry& job, std::vector<FreeSlots>& free);
  void CountOvertaken(const JobEntry& started);
  bool GrantReservations();
  void StartGeneration(JobEntry& job, const PlacementResult& place);
  bool PreemptFor(const JobEntry& head, const std::vector<FreeSlots>& free);
  void SetQueueReason(JobEntry& job, const std::string& reason);
  void SendLaunch(const GenerationEntry& generation, const std::vector<Rank>& ranks);

  // ---- generation_events.cc ----
  RankEntry* CurrentRank(const RankRef& id, const WorkerId& worker, GenerationEntry** generation);
  void Fence(CallId call, const RankRef& id, const WorkerId& worker, const char* what);
  void AnswerJoin(GenerationEntry& generation, RankEntry& rank, CallId call);
  void MoveGeneration(GenerationEntry& generation, GenerationTrigger trigger);
  void FailGeneration(GenerationEntry& generation, FailureCause cause, const std::set<Rank>& dump_stacks = {});
  // Asks every rank that still runs to leave.
  void StopGeneration(GenerationEntry& generation, StopMode mode, const std::string& reason,
                      const std::set<Rank>& dump_stacks = {});
  void RankGone(GenerationEntry& generation, RankEntry& rank, std::optional<FailureCause> cause);
  void MaybeEndGeneration(GenerationEntry& generation);
  void EndGeneration(GenerationEntry& generation);
  void DecideAfterFailure(JobEntry& job, GenerationEntry& generation);
  void PruneGenerations(const JobEntry& job);
  void AddResumed(JobEntry& job, const GenerationEntry& generation, core::Step step);
  void ApplyProgress(GenerationEntry& generation, RankEntry& rank, const RankReport& report);
  void GenerationDeadline(GenerationEntry& generation);
  void GiveUpRanks(GenerationEntry& generation);
  static void SawGeneration(JobEntry& job, Generation number);
  absl::Duration StopLimit() const { return std::max(options.stop_limit, 2 * options.lease); }

  // ---- hang.cc ----
  absl::Duration HangLimit(const GenerationEntry& generation, const JobEntry& job) const;
  void CheckHang(GenerationEntry& generation);

  // ---- quarantine.cc ----
  std::set<WorkerId> LaunchFailedOn(const JobEntry& job) const;
  void CountLaunchFailure(JobEntry& job, const WorkerId& worker);
  void CountLaunches(JobEntry& job, const GenerationEntry& generation);
  void Quarantine(WorkerEntry& worker, JobEntry& job, const std::string& why);
  void EndQuarantine(WorkerEntry& worker);
  void ForgetLaunchFailures(WorkerEntry& worker);

  // ---- worker_events.cc ----
  void MoveWorker(WorkerEntry& worker, WorkerTrigger trigger, const std::string& reason);
  void ArmLease(WorkerEntry& worker);
  bool InContact(const WorkerId& worker) const;
  void WorkerDeadline(WorkerEntry& worker);
  void ReconcileRunning(WorkerEntry& worker, const WorkerRegistered& event, AcceptWorker& accept);
  void LoseRank(const RankRef& ref, const WorkerId& worker, const std::string& detail);
  void LoseRanksOf(const WorkerId& worker, const std::string& detail);
  void LoseUnaccounted(WorkerEntry& worker);
  void TakeRegistration(WorkerEntry& worker, const WorkerRegistered& event);
  void EndStranger(const RunningRank& stranger, const WorkerId& worker);
  void ReleaseSlots(const GenerationEntry& generation, const RankEntry& rank);
  void ForgetWorker(const WorkerId& worker);
  void TellRefusedMessage(const WorkerEntry& worker, const std::string& refused);
  void MaybeDrained(WorkerEntry& worker);
  void DrainJobsOf(const WorkerEntry& worker);

  // ---- checkpoint_ledger.cc ----
  void MoveCheckpoint(CheckpointEntry& checkpoint, CheckpointTrigger trigger);
  CheckpointEntry* FindCheckpoint(const JobId& job, Step step);
  std::string StorageOf(const JobId& job, Step step);
  bool RefuseStep(CallId call, Step step);
  void MaybeSeal(CheckpointEntry& checkpoint);
  void Measure(CheckpointEntry& checkpoint, const EvaluationReported& event);
  void Abandon(CheckpointEntry& checkpoint, CheckpointTrigger trigger, const std::string& why);
  void AbandonOpen(const GenerationEntry& generation);
  void Retire(CheckpointEntry& checkpoint, const std::string& why);
  void ApplyRetention(const JobEntry& job);
  void RetryDeletions(const JobEntry& job);
  void CleanAbandoned(const JobEntry& job, Step below);
  std::set<Step> Roots(const JobEntry& job) const;
  std::string WhyNeeded(const JobEntry& job, Step step) const;
  void SendDelete(const CheckpointEntry& checkpoint);
  void PointAliases(JobEntry& job);

  // ---- lost_checkpoints.cc ----
  void SetAsideCheckpoints(JobEntry& job);
  bool FailsToRead(const JobEntry& job) const;

  // ---- goodput.cc ----
  void Account(JobEntry& job);
  void AccountTraining(JobEntry& job, const GenerationEntry& generation, double seconds);

  absl::Time now_;
  const absl::Time recovered_at_;
  std::vector<Effect> effects_;
  Timers timers_;
  DirtyRecords dirty_;
  RequestMemory requests_;
  FinishedJobs finished_;
  EventSums event_sums_;  // of live generations
  JobQueue queue_;
  std::vector<JobId> overtaken_;  // too often, in this pass
  std::set<std::pair<JobId, Step>> deleting_;
  std::vector<Repair> repairs_;                // of what was recovered; told by Recover()
  std::set<JobId> live_jobs_;                  // with a live generation
  std::map<JobId, std::set<JobId>> children_;  // parent -> unfinished children
  std::map<JobId, double> stall_seen_;         // checkpoint stall already accounted, of the live generation
  bool schedule_ = false;                      // slots or jobs changed: the queue must be gone through
  bool capacity_changed_ = false;              // so did the workers: what is parked must be looked at too
};

}  // namespace athanor::core

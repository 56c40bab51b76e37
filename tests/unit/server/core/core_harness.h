// Drives one CoordinatorCore by hand: a fake clock, one call per event, the effects of the last step at hand. Every
// step is checked against the core's invariants and for events that tell of an error of ours.
//
//   CoreHarness h;
//   h.Register("w1", 4);
//   const JobId job = h.Submit({.ranks = 2});
//   h.StartTraining(job);
//   h.Exit(job, 0, h.Cause(CauseKind::kSignal));
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/core/coordinator_core.h"
#include "server/core/invariants.h"

namespace athanor::core {

inline CoreOptions PatientOptions() {
  CoreOptions options;
  options.lease = absl::Hours(100);  // tests of leases set their own
  return options;
}

struct SubmitArgs {
  std::string name = "job";
  int32_t ranks = 1;
  int32_t priority = 0;
  bool preemptible = false;
  std::string device = "cpu";
  int32_t keep = 3;
  RestartPolicySpec restart;
  TimeoutsSpec timeouts;
  Fencing fencing = Fencing::kGeneration;
  std::string parent_job, parent_checkpoint;
  std::string key;  // empty: a fresh one
  bool dry_run = false;
};

class CoreHarness {
 public:
  explicit CoreHarness(CoreOptions options = PatientOptions(), ClusterState recovered = {})
      : now(absl::FromUnixSeconds(1'700'000'000)), core(options, std::move(recovered), now) {
    Check(core.Recover(now));
  }

  absl::Time now;
  CoordinatorCore core;
  std::vector<Effect> last;                             // of the last step
  std::map<JobId, std::vector<JobEventEntry>> history;  // every event so far

  const std::vector<Effect>& Step(const Event& event) {
    Check(core.Step(event, now));
    return last;
  }

  // Moves the clock and fires each deadline on its way.
  void Pass(absl::Duration duration) {
    const absl::Time end = now + duration;
    while (core.NextDeadline() <= end) {
      now = std::max(now, core.NextDeadline());
      Step(DeadlineReached{});
    }
    now = end;
  }

  const JobEntry& job(const JobId& id) const { return core.state().jobs.at(id); }
  const GenerationEntry& generation(const JobId& id) const { return *CurrentGeneration(core.state(), job(id)); }
  const CheckpointEntry& checkpoint(const JobId& id, core::Step step) const {
    return core.state().checkpoints.at(id).at(step);
  }
  const WorkerEntry& worker(const std::string& id) const { return core.state().workers.at(WorkerId(id)); }

  template <typename T>
  std::vector<T> All() const {
    std::vector<T> found;
    for (const Effect& effect : last) {
      if (const T* one = std::get_if<T>(&effect)) found.push_back(*one);
    }
    return found;
  }
  Reply reply() const {
    const std::vector<Reply> replies = All<Reply>();
    EXPECT_EQ(replies.size(), 1u) << "a verb is answered once";
    return replies.empty() ? Reply{.status = absl::UnknownError("no reply")} : replies[0];
  }
  RankReply rank_reply() const {
    const std::vector<RankReply> replies = All<RankReply>();
    EXPECT_EQ(replies.size(), 1u);
    return replies.empty() ? RankReply{.status = absl::UnknownError("no reply")} : replies[0];
  }
  // The newest event of this type; empty when there is none.
  std::string Told(const JobId& id, const std::string& type) const {
    std::string message;
    if (auto it = history.find(id); it != history.end()) {
      for (const JobEventEntry& event : it->second) message = event.type == type ? event.message : message;
    }
    return message;
  }

  // What an agent says that runs `count` ranks of this generation, rank r in slot r.
  static std::vector<RunningRank> Running(const JobId& id, Generation number, Rank count) {
    std::vector<RunningRank> running(static_cast<size_t>(count));
    for (Rank rank = 0; rank < count; ++rank) {
      running[rank].id = {id, number, rank};
      running[rank].slots = {rank};
    }
    return running;
  }
  // Registers, reports `exits` and beats, as agents do; `last` has the effects of all of it.
  void Register(const std::string& id, int32_t slots, const std::string& device = "cpu",
                const std::vector<RunningRank>& running = {}, const std::vector<RankExited>& exits = {}) {
    WorkerRegistered event = Registration(id, slots, running);
    event.device = device;
    std::vector<Effect> all = Step(event);
    if (All<AcceptWorker>().empty()) return;
    for (const RankExited& exit : exits) Append(Step(exit), all);
    Beat(id);
    Append(last, all);
    last = std::move(all);
  }
  WorkerRegistered Registration(const std::string& id, int32_t slots, const std::vector<RunningRank>& running = {}) {
    WorkerRegistered event{.session = ++sessions_, .worker = WorkerId(id), .instance = "process-1", .host = "host"};
    event.device = "cpu";
    event.slots = slots;
    event.running = running;
    return event;
  }
  void Beat(const std::string& id, std::vector<RankReport> reports = {}) {
    Step(WorkerHeartbeat{worker(id).session, WorkerId(id), worker(id).incarnation, std::move(reports)});
  }

  // The id that a job would get; `reply()` tells whether it did.
  JobId Submit(const SubmitArgs& args = {}) {
    SubmitJob event{.call = ++calls_, .id = JobId(absl::StrCat(args.name, "-", ++jobs_)), .dry_run = args.dry_run};
    event.request = Key(args.key);
    event.seed = 42;
    JobSpec& spec = event.spec;
    spec.name = args.name;
    spec.ranks = args.ranks;
    spec.priority = args.priority;
    spec.preemptible = args.preemptible;
    spec.device = args.device;
    spec.keep_latest_k = args.keep;
    spec.restart = args.restart;
    spec.timeouts = args.timeouts;
    spec.fencing = args.fencing;
    spec.parent_job = args.parent_job;
    spec.parent_checkpoint = args.parent_checkpoint;
    Step(event);
    return event.id;
  }
  template <typename VerbEvent>
  Reply Verb(VerbEvent event) {
    event.call = ++calls_;
    if (event.request.key.empty()) event.request = Key("");
    Step(event);
    return reply();
  }
  RequestKey Key(const std::string& key) { return {key.empty() ? absl::StrCat("key-", ++keys_) : key, "digest"}; }

  RankRef Ref(const JobId& id, Rank rank) const { return {id, job(id).generation, rank}; }
  WorkerId Seat(const JobId& id, Rank rank) const { return generation(id).ranks.at(rank).placement.worker; }
  void Launch(const JobId& id, Rank rank) { Step(RankLaunched{0, Seat(id, rank), Ref(id, rank), 100 + rank}); }
  CallId Join(const JobId& id, Rank rank) {
    Step(RankJoined{++calls_, Seat(id, rank), Ref(id, rank), rank == 0 ? "127.0.0.1:29500" : ""});
    return calls_;
  }
  void StartTraining(const JobId& id) {
    const auto ranks = static_cast<Rank>(generation(id).ranks.size());
    for (Rank rank = 0; rank < ranks; ++rank) Launch(id, rank);
    for (Rank rank = 0; rank < ranks; ++rank) Join(id, rank);
    ASSERT_EQ(generation(id).state, GenerationState::kTraining);
  }
  void Progress(const JobId& id, Rank rank, core::Step step, const std::string& phase = "training") {
    RankReport report{Ref(id, rank), {}, absl::ZeroDuration()};
    report.progress.step = step;
    report.progress.phase = phase;
    report.progress.resumed_from_step = generation(id).resume_step;
    Beat(Seat(id, rank).str(), {report});
  }
  static FailureCause Cause(CauseKind kind, const std::string& detail = "it broke") {
    return {.kind = kind, .detail = detail};
  }
  void Exit(const JobId& id, Rank rank, std::optional<FailureCause> cause, bool finished = false) {
    Step(RankExited{0, Seat(id, rank), Ref(id, rank), std::move(cause), finished});
  }
  // A rank fails for `kind`; the others follow as it kills them.
  void Fail(const JobId& id, CauseKind kind) {
    const auto ranks = static_cast<Rank>(generation(id).ranks.size());
    Exit(id, 0, Cause(kind));
    for (Rank rank = 1; rank < ranks; ++rank) Exit(id, rank, Cause(CauseKind::kPeerLost));
  }
  void Finish(const JobId& id) {
    const auto ranks = static_cast<Rank>(generation(id).ranks.size());
    for (Rank rank = 0; rank < ranks; ++rank) Exit(id, rank, std::nullopt, /*finished=*/true);
  }
  // ---- checkpoints ----
  CallId Vote(const JobId& id, Rank rank, core::Step step) {
    Step(ShardCommitted{++calls_, Seat(id, rank), Ref(id, rank), step, {rank, absl::StrCat("rank-", rank), 100, 7}});
    return calls_;
  }
  void Manifest(const JobId& id, core::Step step, bool best = false) {
    const auto ranks = static_cast<int64_t>(generation(id).ranks.size());
    Step(ManifestCommitted{++calls_, Seat(id, 0), Ref(id, 0), step, 100 * ranks, {{"loss", 0.5}}, best, 0.1});
  }
  void Save(const JobId& id, core::Step step, bool best = false) {
    const auto ranks = static_cast<Rank>(generation(id).ranks.size());
    for (Rank rank = 0; rank < ranks; ++rank) Vote(id, rank, step);
    Manifest(id, step, best);
    ASSERT_EQ(checkpoint(id, step).state, CheckpointState::kCommitted);
  }

 private:
  static void Append(const std::vector<Effect>& more, std::vector<Effect>& all) {
    all.insert(all.end(), more.begin(), more.end());
  }
  void Check(std::vector<Effect> effects) {
    last = std::move(effects);
    const absl::Status status = CheckInvariants(core.state());
    EXPECT_TRUE(status.ok()) << status;
    for (const Effect& effect : last) {
      const auto* note = std::get_if<Note>(&effect);
      EXPECT_FALSE(note != nullptr && note->kind == Note::Kind::kInternalError) << note->message;
      const auto* put = std::get_if<PutRecord>(&effect);
      const auto* event = put == nullptr ? nullptr : std::get_if<JobEventEntry>(&put->record);
      if (event == nullptr) continue;
      EXPECT_NE(event->type, "InternalError") << event->message;
      history[event->job].push_back(*event);
    }
  }

  SessionId sessions_ = 0;
  CallId calls_ = 0;
  int jobs_ = 0, keys_ = 0;
};

}  // namespace athanor::core

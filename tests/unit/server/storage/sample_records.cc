#include "tests/unit/server/storage/sample_records.h"

#include "server/convert/proto_convert.h"

namespace athanor {
namespace {

absl::Time At(int64_t seconds) {
  return absl::FromUnixNanos(1'700'000'000'123'456'789) + absl::Seconds(seconds);
}

core::FailureCause Cause() {
  return {.kind = core::CauseKind::kUserCode,
          .retryable = true,
          .rank = 2,
          .worker = core::WorkerId("w1"),
          .exit_code = 3,
          .signal = 4,
          .detail = "std::bad_alloc",
          .log_tail = "größer\n"};
}

core::RankProgress Progress(core::Rank rank) {
  core::RankProgress progress;
  progress.rank = rank;
  progress.phase = "training";
  progress.step = 121;
  progress.epoch = 1.5;
  progress.samples = 3872;
  progress.loss = 0.25;
  progress.metrics = {{"accuracy", 0.9}};
  progress.step_seconds = 0.01;
  progress.samples_per_second = 3200;
  progress.total_steps = 400;
  progress.checkpoint_stall_seconds = 0.2;
  progress.checkpoint_failures = 1;
  progress.resumed_from_step = 100;
  progress.checkpoint_error = "No space left on device";
  progress.nonfinite_losses = 2;
  progress.checkpoint_skipped = 3;
  progress.evaluate_seconds = 0.5;
  return progress;
}

}  // namespace

v1::JobSpec SampleSpec() {
  v1::JobSpec spec;
  spec.set_name("digits");
  (*spec.mutable_labels())["team"] = "vision";
  spec.mutable_task()->set_name("digits_mlp");
  spec.mutable_task()->set_options_json(R"({"data": "/data/digits.csv"})");
  spec.mutable_resources()->set_ranks(3);
  spec.mutable_resources()->set_slots_per_rank(2);
  spec.mutable_resources()->set_device("cpu");
  spec.set_priority(7);
  spec.set_preemptible(true);
  spec.set_runner_json(R"({"steps": 400, "checkpoint": {"interval": 20, "keep_latest_k": 5}})");
  (*spec.mutable_restart()->mutable_budgets())["signal"] = 4;
  spec.mutable_restart()->mutable_backoff_initial()->set_nanos(300'000'000);
  spec.mutable_timeouts()->mutable_hang()->set_seconds(12);
  (*spec.mutable_env())["TOKEN"] = "secret";
  return spec;
}

core::JobEntry SampleJob() {
  core::JobEntry job;
  job.id = core::JobId("digits-1");
  job.spec = CoreSpec(SampleSpec());
  job.state = core::JobState::kBackingOff;
  job.reason = "restarts in 2s";
  job.generation = 2;
  job.submit_order = 9;
  job.created_at = At(0);
  job.started_at = At(1);
  job.ended_at = At(2);
  job.queued_at = At(3);
  job.retry_at = At(4);
  job.restarts_by_cause = {{core::CauseKind::kSignal, 3}};
  job.generations_without_progress = 1;
  job.best_progress_step = 100;
  job.last_cause = Cause();
  job.goodput = {1, 2, 3, 4, 5, 6, At(5)};
  job.last_progress = Progress(1);
  job.aliases = {{"latest", 120}};
  job.parent = core::JobId("parent-1");
  job.parent_step = 50;
  job.max_step_seen = 130;
  job.next_event = 18;
  job.version = 33;
  job.seed = 0xfedcba9876543210;
  job.scratch_generation = 1;
  return job;
}

core::GenerationEntry SampleGeneration() {
  core::GenerationEntry generation;
  generation.job = core::JobId("digits-1");
  generation.number = 2;
  generation.state = core::GenerationState::kStopping;
  for (core::Rank rank = 0; rank < 2; ++rank) {
    core::RankEntry entry;
    entry.placement = {rank, core::WorkerId("w1"), {2 * rank, 2 * rank + 1}};
    entry.state = core::RankState::kFinished;
    entry.said_finish = true;
    entry.endpoint = "127.0.0.1:29500";
    entry.progress = Progress(rank);
    generation.ranks.push_back(entry);
  }
  generation.created_at = At(0);
  generation.training_at = At(1);
  generation.ended_at = At(2);
  generation.deadline = At(3);
  generation.cause = Cause();
  generation.reason = "all ranks on w1";
  generation.resume_step = 100;
  generation.stop_for_suspend = generation.stop_for_cancel = generation.stop_for_preempt = true;
  return generation;
}

core::CheckpointEntry SampleCheckpoint() {
  core::CheckpointEntry checkpoint;
  checkpoint.job = core::JobId("digits-1");
  checkpoint.step = 120;
  checkpoint.generation = 2;
  checkpoint.state = core::CheckpointState::kCommitted;
  for (core::Rank rank = 0; rank < 2; ++rank) checkpoint.shards[rank] = {rank, "rank-0.safetensors", 4096, 0xdeadbeef};
  checkpoint.shards_expected = 2;
  checkpoint.bytes = 8192;
  checkpoint.metrics = {{"loss", 0.25}};
  checkpoint.is_best = true;
  checkpoint.created_at = At(0);
  checkpoint.committed_at = At(1);
  checkpoint.note = "kept";
  checkpoint.save_seconds = 0.125;
  checkpoint.storage = "0123456789abcdef0123456789abcdef";
  return checkpoint;
}

core::WorkerEntry SampleWorker() {
  core::WorkerEntry worker;
  worker.id = core::WorkerId("w1");
  worker.state = core::WorkerState::kDraining;
  worker.incarnation = 5;
  worker.instance = "boot-1";
  worker.host = "node-7";
  worker.slots = 8;
  worker.device = "cuda";
  worker.version = "0.1.0";
  worker.labels = {{"zone", "a"}};
  worker.registered_at = At(0);
  worker.lost_at = At(1);
  worker.drain = true;
  worker.reason = "drain asked for";
  worker.quarantined_until = At(2);
  worker.quarantines = 3;
  worker.home = "boot/1/2";
  return worker;
}

core::JobEventEntry SampleEvent() {
  return {core::JobId("digits-1"), 17, At(0), "RankFailed", 2, 1, "rank 1: signal 9"};
}

core::RequestEntry SampleRequest() {
  return {"key-1", "digest", core::JobId("digits-1"), "is Cancelled already", At(0), 120};
}

}  // namespace athanor

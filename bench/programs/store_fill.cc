// Fills an empty data directory with what years of use leave behind: finished jobs, each with generations, checkpoints,
// events and its request key, a few jobs that wait, and workers that are gone.
//
//   bench_store_fill '{"directory": "/var/lib/athanor", "jobs": 10000, "checkpoints": 100000}'
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "athanor/base/status_macros.h"
#include "bench/programs/program.h"
#include "server/convert/proto_convert.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_store.h"

namespace athanor::bench {
namespace {

constexpr int kRanks = 2;
constexpr int64_t kJobsPerCommit = 50;
constexpr int64_t kWaitEvery = 100;  // each so-manieth job is queued, not finished
constexpr int64_t kWorkers = 50;
const absl::Time kStart = absl::Now() - absl::Hours(24 * 14);  // younger than what is forgotten

std::string Payload(const std::string& name) {
  v1::JobSpec spec;
  spec.set_name(name);
  (*spec.mutable_labels())["team"] = "vision";
  spec.mutable_task()->set_name("digits_mlp");
  spec.mutable_task()->set_options_json(R"({"data": "/data/digits.csv", "hidden": [256, 256], "dropout": 0.2})");
  spec.mutable_resources()->set_ranks(kRanks);
  spec.set_runner_json(
      R"({"seed": 7, "steps": 9000, "optim": {"type": "adamw", "lr": 0.001, "weight_decay": 0.05},)"
      R"( "sched": {"type": "cosine"}, "dataloader": {"batch_size": 32}, "checkpoint": {"interval": 250}})");
  (*spec.mutable_env())["DATA_ROOT"] = "/data";
  return spec.SerializeAsString();
}

class Filler {
 public:
  void Put(core::PutRecord record) {
    auto [key, value] = EncodeRecord(record);
    batch_.operations.push_back({std::move(key), std::move(value)});
    ++records_;
  }
  WriteBatch Take() { return std::exchange(batch_, {}); }
  int64_t records() const { return records_; }

  void Worker(int64_t number) {
    core::WorkerEntry worker;
    worker.id = core::WorkerId(absl::StrFormat("node-%03d", number));
    worker.state = core::WorkerState::kLost;
    worker.incarnation = 1;
    worker.host = "10.0.0.1";
    worker.slots = 2;
    worker.registered_at = worker.lost_at = absl::Now();
    Put({worker});
  }

  void Job(int64_t number, int64_t checkpoints) {
    core::JobEntry job;
    job.id = core::JobId(absl::StrFormat("digits-%08d", number));
    v1::JobSpec spec;
    spec.ParseFromString(Payload("digits"));
    job.spec = CoreSpec(spec);
    job.submit_order = static_cast<uint64_t>(number) + 1;
    job.created_at = job.queued_at = kStart + absl::Seconds(number);
    const bool waits = number % kWaitEvery == 0;
    job.state = waits ? core::JobState::kQueued : core::JobState::kSucceeded;
    job.reason = waits ? "waits for 2 free slots" : "finished at step 9000";
    job.generation = waits ? 0 : 2;
    if (!waits) {
      job.started_at = job.created_at + absl::Seconds(2);
      job.ended_at = job.created_at + absl::Seconds(50);
      job.restarts_by_cause[core::CauseKind::kSignal] = 1;
      job.last_progress.step = job.last_progress.total_steps = job.max_step_seen = 9000;
      job.last_progress.metrics = {{"test.accuracy", 0.98}, {"train.loss", 0.01}, {"lr", 0.001}};
      for (int generation = 1; generation <= 2; ++generation) Generation(job, generation);
    }
    for (int64_t i = 1; i <= checkpoints; ++i) Checkpoint(job, i * 250);
    if (checkpoints > 0) job.aliases = {{"latest", checkpoints * 250}, {"best", checkpoints * 250}};
    for (int i = 0; i < 12; ++i) Event(job);
    core::RequestEntry request{"key-" + job.id.str(), "digest", job.id, "", job.created_at};
    Put({request});
    Put({job});
  }

 private:
  void Generation(const core::JobEntry& job, core::Generation number) {
    core::GenerationEntry generation;
    generation.job = job.id;
    generation.number = number;
    generation.state = number == 1 ? core::GenerationState::kFailed : core::GenerationState::kCompleted;
    generation.created_at = generation.training_at = generation.ended_at = job.created_at;
    for (int rank = 0; rank < kRanks; ++rank) {
      core::RankEntry entry;
      entry.placement = {rank, core::WorkerId(absl::StrFormat("node-%03d", rank)), {0}};
      entry.state = core::RankState::kExited;
      entry.progress = job.last_progress;
      generation.ranks.push_back(entry);
    }
    Put({generation});
  }
  void Checkpoint(const core::JobEntry& job, core::Step step) {
    core::CheckpointEntry checkpoint;
    checkpoint.job = job.id;
    checkpoint.step = step;
    checkpoint.generation = std::max(job.generation, 1);
    checkpoint.state = core::CheckpointState::kCommitted;
    checkpoint.shards_expected = kRanks;
    for (int rank = 0; rank < kRanks; ++rank)
      checkpoint.shards[rank] = {rank, absl::StrFormat("shard-%05d-of-%05d.safetensors", rank, kRanks), 515960, 1};
    checkpoint.bytes = 1031920;
    checkpoint.metrics = {{"test.accuracy", 0.98}};
    checkpoint.created_at = checkpoint.committed_at = job.created_at;
    Put({checkpoint});
  }
  void Event(core::JobEntry& job) {
    Put({core::JobEventEntry{job.id, job.next_event++, job.created_at, "CheckpointCommitted", 1, -1,
                             "step-000000000250, 1031920 bytes"}});
  }

  WriteBatch batch_;
  int64_t records_ = 0;
};

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MetadataStore> store, OpenRocksDbStore(settings["directory"]));
  const int64_t jobs = settings["jobs"], checkpoints = settings["checkpoints"];
  Filler filler;
  for (int64_t i = 0; i < kWorkers; ++i) filler.Worker(i);
  for (int64_t job = 0; job < jobs; ++job) {
    filler.Job(job, checkpoints * (job + 1) / jobs - checkpoints * job / jobs);
    if (job % kJobsPerCommit == kJobsPerCommit - 1) RETURN_IF_ERROR(store->Commit(filler.Take()));
  }
  RETURN_IF_ERROR(store->Commit(filler.Take()));
  return nlohmann::json{{"jobs", jobs}, {"checkpoints", checkpoints}, {"records", filler.records()}};
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(argc, argv, {{"directory", ""}, {"jobs", 10000}, {"checkpoints", 100000}},
                              athanor::bench::Run);
}

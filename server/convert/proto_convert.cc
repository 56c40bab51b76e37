#include "server/convert/proto_convert.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/json_text.h"
#include "athanor/base/utf8_text.h"
#include "athanor/config/config_loader.h"
#include "common/service/channel.h"
#include "common/service/message_fields.h"

namespace athanor {
namespace {

template <typename Map>
std::map<typename Map::key_type, typename Map::mapped_type> ToStd(const Map& map) {
  return {map.begin(), map.end()};
}

absl::Duration OrDefault(const google::protobuf::Duration& given, absl::Duration otherwise) {
  const absl::Duration duration = FromProto(given);
  return duration > absl::ZeroDuration() ? duration : otherwise;
}

v1::Goodput ToProto(const core::GoodputEntry& goodput) {
  v1::Goodput proto;
  CopyToMessage(goodput, &proto);
  return proto;
}

// "step-000000000120", "scratch", or whose weights it began with.
std::string ResumeSource(const core::JobEntry& job, core::Step resumed, bool detailed) {
  if (resumed >= 0) return core::CheckpointName(resumed);
  if (!job.parent.str().empty())
    return absl::StrCat("weights of ", core::CheckpointName(job.parent_step), " of ", job.parent.str());
  v1::JobSpec spec;
  if (!detailed || !spec.ParseFromString(job.spec.payload) || !absl::StrContains(spec.runner_json(), "pretrained"))
    return "scratch";
  const nlohmann::json runner = ParseJsonText(spec.runner_json());
  const auto path = runner.is_object() ? runner.find("pretrained") : runner.end();
  return path != runner.end() && path->is_string() ? absl::StrCat("weights of ", path->get<std::string>()) : "scratch";
}

void FillProgress(const core::ClusterState& state, const core::JobEntry& job, bool detailed, v1::JobProgress& proto) {
  const core::RankProgress all = core::AggregateProgress(state, job);
  CopyToMessage(all, &proto);
  const core::GenerationEntry* generation = core::CurrentGeneration(state, job);
  proto.set_world_size(generation != nullptr ? static_cast<int32_t>(generation->ranks.size()) : job.spec.ranks);
  int32_t restarts = 0;
  for (const auto& [cause, count] : job.restarts_by_cause) restarts += count;
  proto.set_restarts(restarts);
  // What rank 0 says it did counts more than what it was offered first.
  core::Step resumed = generation != nullptr ? generation->resume_step : -1;
  if (generation != nullptr && !generation->ranks.empty() && generation->ranks[0].progress.resumed_from_step >= 0)
    resumed = generation->ranks[0].progress.resumed_from_step;
  proto.set_resume_source(ResumeSource(job, resumed, detailed));
  if (!detailed || generation == nullptr) return;
  int64_t bytes = 0;
  for (const core::RankEntry& rank : generation->ranks) {
    v1::RankProgress& one = *proto.add_ranks();
    one = athanor::ToProto(rank.progress);
    one.clear_events();                                   // the job has them as events of its own
    if (bytes >= kMaxPageBytes / 4) one.clear_metrics();  // the job has rank 0's
    if (bytes >= kMaxPageBytes / 2) one.clear_checkpoint_error();
    bytes += static_cast<int64_t>(one.ByteSizeLong());
  }
}

}  // namespace

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::IDivDuration(duration, absl::Nanoseconds(1), &duration)));
  return proto;
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp proto;
  proto.set_seconds(absl::ToUnixSeconds(time));
  proto.set_nanos(static_cast<int32_t>((time - absl::FromUnixSeconds(proto.seconds())) / absl::Nanoseconds(1)));
  return proto;
}

v1::FailureCause ToProto(const core::FailureCause& cause) {
  v1::FailureCause proto;
  proto.set_kind(static_cast<v1::CauseKind>(cause.kind));
  proto.set_retryable(cause.retryable);
  proto.set_rank(cause.rank);
  proto.set_worker(cause.worker.str());
  proto.set_exit_code(cause.exit_code);
  proto.set_signal(cause.signal);
  proto.set_detail(cause.detail);
  proto.set_log_tail(cause.log_tail);
  return proto;
}

core::FailureCause FromProto(const v1::FailureCause& proto) {
  core::FailureCause cause;
  const int kind = proto.kind();
  cause.kind = kind > 0 && kind < kCauseKinds ? static_cast<core::CauseKind>(kind) : core::CauseKind::kOurBug;
  cause.retryable = proto.retryable();
  cause.rank = proto.rank();
  cause.worker = core::WorkerId(proto.worker());
  cause.exit_code = proto.exit_code();
  cause.signal = proto.signal();
  cause.detail = CutUtf8(proto.detail(), 1024);
  cause.log_tail = CutUtf8(proto.log_tail(), 4096);
  return cause;
}

v1::RankProgress ToProto(const core::RankProgress& progress) {
  v1::RankProgress proto;
  CopyToMessage(progress, &proto);
  proto.mutable_events()->Add(progress.events.begin(), progress.events.end());
  if (IsSet(progress.updated_at)) *proto.mutable_updated_at() = ToProto(progress.updated_at);
  return proto;
}

std::map<std::string, double> BoundedMetrics(const google::protobuf::Map<std::string, double>& metrics, size_t most) {
  constexpr size_t kMaxName = 128;
  std::map<std::string, double> bounded;
  for (const auto& [name, value] : metrics) {
    if (name.size() <= kMaxName) bounded.emplace(name, value);
  }
  while (bounded.size() > most) bounded.erase(std::prev(bounded.end()));
  return bounded;
}

core::RankProgress FromProto(const v1::RankProgress& proto) {
  core::RankProgress progress;
  CopyFromMessage(proto, &progress);
  progress.phase = CutUtf8(progress.phase, 32);
  progress.checkpoint_error = CutUtf8(progress.checkpoint_error, 1024);
  progress.metrics = BoundedMetrics(proto.metrics(), kMaxProgressMetrics);
  for (const std::string& event : proto.events()) {
    if (proto.rank() == 0 && progress.events.size() < kMaxRunEvents)
      progress.events.push_back(CutUtf8(event, kMaxRunEventBytes));
  }
  return progress;
}

core::RankRef FromProto(const v1::RankId& id) {
  return {core::JobId(id.job()), id.generation(), id.rank()};
}

v1::RankId ToProto(const core::RankRef& id) {
  v1::RankId proto;
  proto.set_job(id.job.str());
  proto.set_generation(id.generation);
  proto.set_rank(id.rank);
  return proto;
}

int32_t KeepLatestK(const v1::JobSpec& spec) {
  RunnerConfig config;
  CheckRunnerConfig(ParseJsonText(spec.runner_json()), &config);
  return static_cast<int32_t>(std::clamp<int64_t>(config.checkpoint.keep_latest_k, 0, 1 << 30));
}

core::JobSpec CoreSpec(const v1::JobSpec& spec) {
  return CoreSpec(spec, KeepLatestK(spec));
}

core::JobSpec CoreSpec(const v1::JobSpec& spec, int32_t keep_latest_k) {
  core::JobSpec view;
  view.name = spec.name();
  view.labels = ToStd(spec.labels());
  view.ranks = spec.resources().ranks();
  view.slots_per_rank = std::max(1, spec.resources().slots_per_rank());
  view.device = spec.resources().device().empty() ? "cpu" : spec.resources().device();
  view.priority = spec.priority();
  view.preemptible = spec.preemptible();
  for (const auto& [name, budget] : spec.restart().budgets()) {
    if (const auto kind = CauseFromName(name)) view.restart.budgets[*kind] = budget;
  }
  view.restart.backoff_initial = OrDefault(spec.restart().backoff_initial(), view.restart.backoff_initial);
  view.restart.backoff_max = OrDefault(spec.restart().backoff_max(), view.restart.backoff_max);
  if (spec.restart().has_backoff_initial() || spec.restart().backoff_jitter() > 0)
    view.restart.backoff_jitter = spec.restart().backoff_jitter();
  if (spec.restart().max_generations_without_progress() > 0) {
    view.restart.max_generations_without_progress = spec.restart().max_generations_without_progress();
  }
  view.timeouts.join = OrDefault(spec.timeouts().join(), view.timeouts.join);
  view.timeouts.startup = OrDefault(spec.timeouts().startup(), view.timeouts.startup);
  view.timeouts.hang = OrDefault(spec.timeouts().hang(), view.timeouts.hang);
  view.timeouts.stop_grace = OrDefault(spec.timeouts().stop_grace(), view.timeouts.stop_grace);
  view.fencing = spec.fencing() == "strict" ? core::Fencing::kStrict : core::Fencing::kGeneration;
  view.parent_job = spec.parent_job();
  view.parent_checkpoint = spec.parent_checkpoint();
  view.keep_latest_k = keep_latest_k;
  view.payload = spec.SerializeAsString();
  return view;
}

v1::JobSpec WithoutSecrets(const v1::JobSpec& spec) {
  v1::JobSpec copy = spec;
  for (auto& [name, value] : *copy.mutable_env()) value.clear();
  return copy;
}

v1::Generation ToProto(const core::GenerationEntry& generation) {
  v1::Generation proto;
  proto.set_number(generation.number);
  proto.set_state(static_cast<v1::GenerationState>(generation.state));
  for (const core::RankEntry& rank : generation.ranks) {
    v1::RankPlacement& seat = *proto.add_placement();
    seat.set_rank(rank.placement.rank);
    seat.set_worker(rank.placement.worker.str());
    seat.mutable_slots()->Add(rank.placement.slots.begin(), rank.placement.slots.end());
  }
  *proto.mutable_created_at() = ToProto(generation.created_at);
  if (IsSet(generation.training_at)) *proto.mutable_training_at() = ToProto(generation.training_at);
  if (IsSet(generation.ended_at)) *proto.mutable_ended_at() = ToProto(generation.ended_at);
  if (generation.cause.has_value()) *proto.mutable_cause() = ToProto(*generation.cause);
  proto.set_reason(generation.reason);
  proto.set_resume_step(generation.resume_step);
  return proto;
}

v1::Checkpoint ToProto(const core::CheckpointEntry& checkpoint, const core::JobEntry& job, const std::string& job_dir) {
  v1::Checkpoint proto;
  proto.set_job(checkpoint.job.str());
  proto.set_step(checkpoint.step);
  proto.set_name(core::CheckpointName(checkpoint.step));
  proto.set_generation(checkpoint.generation);
  proto.set_state(static_cast<v1::CheckpointState>(checkpoint.state));
  for (const auto& [rank, shard] : checkpoint.shards) {
    v1::ShardInfo& info = *proto.add_shards();
    info.set_rank(rank);
    info.set_file(shard.file);
    info.set_bytes(shard.bytes);
    info.set_crc32c(shard.crc32c);
  }
  proto.set_shards_expected(checkpoint.shards_expected);
  proto.set_bytes(checkpoint.bytes);
  proto.mutable_metrics()->insert(checkpoint.metrics.begin(), checkpoint.metrics.end());
  for (const auto& [alias, step] : job.aliases) {
    if (step == checkpoint.step) proto.add_aliases(alias);
  }
  *proto.mutable_created_at() = ToProto(checkpoint.created_at);
  if (IsSet(checkpoint.committed_at)) *proto.mutable_committed_at() = ToProto(checkpoint.committed_at);
  proto.set_path(absl::StrCat(job_dir, "/", proto.name()));
  proto.set_note(checkpoint.note);
  proto.set_save_seconds(checkpoint.save_seconds);
  return proto;
}

v1::Worker ToProto(const core::WorkerEntry& worker, absl::Time now) {
  v1::Worker proto;
  proto.set_id(worker.id.str());
  proto.set_state(static_cast<v1::WorkerState>(worker.state));
  proto.set_incarnation(worker.incarnation);
  proto.set_host(worker.host);
  proto.set_slots(worker.slots);
  proto.set_device(worker.device);
  for (const auto& [slot, rank] : worker.used) {
    v1::WorkerSlotUse& use = *proto.add_used();
    use.set_slot(slot);
    use.set_job(rank.job.str());
    use.set_generation(rank.generation);
    use.set_rank(rank.rank);
  }
  *proto.mutable_registered_at() = ToProto(worker.registered_at);
  if (IsSet(worker.last_heartbeat))
    *proto.mutable_heartbeat_age() = ToProto(std::max(now - worker.last_heartbeat, absl::ZeroDuration()));
  proto.set_version(worker.version);
  proto.set_reason(worker.reason);
  proto.mutable_labels()->insert(worker.labels.begin(), worker.labels.end());
  return proto;
}

v1::JobEvent ToProto(const core::JobEventEntry& event) {
  v1::JobEvent proto;
  proto.set_sequence(event.sequence);
  *proto.mutable_time() = ToProto(event.time);
  proto.set_type(event.type);
  proto.set_generation(event.generation);
  proto.set_rank(event.rank);
  proto.set_message(event.message);
  return proto;
}

v1::Job ToProto(const core::CoordinatorCore& core, const core::JobEntry& job, const std::string& job_dir,
                bool detailed) {
  const core::ClusterState& state = core.state();
  v1::Job proto;
  proto.set_id(job.id.str());
  v1::JobSpec spec;
  if (spec.ParseFromString(job.spec.payload)) *proto.mutable_spec() = WithoutSecrets(spec);
  proto.set_state(static_cast<v1::JobState>(job.state));
  proto.set_reason(core.Reason(job.id));
  proto.set_generation(job.generation);
  *proto.mutable_created_at() = ToProto(job.created_at);
  if (IsSet(job.started_at)) *proto.mutable_started_at() = ToProto(job.started_at);
  if (IsSet(job.ended_at)) *proto.mutable_ended_at() = ToProto(job.ended_at);
  if (IsSet(job.retry_at)) *proto.mutable_retry_at() = ToProto(job.retry_at);
  FillProgress(state, job, detailed, *proto.mutable_progress());
  for (const auto& [cause, count] : job.restarts_by_cause)
    (*proto.mutable_restarts_by_cause())[ToString(cause)] = count;
  if (job.last_cause.has_value()) *proto.mutable_last_cause() = ToProto(*job.last_cause);
  *proto.mutable_goodput() = ToProto(job.goodput);
  proto.set_version(job.version);
  proto.set_queue_position(core.QueuePosition(job.id));
  proto.set_job_dir(job_dir);
  proto.set_checkpoint_warning(core::CheckpointWarning(state, job));
  auto generations = state.generations.find(job.id);
  if (!detailed || generations == state.generations.end()) return proto;
  // The newest that fit into a message beside the rest.
  constexpr size_t kShown = 32;
  std::vector<v1::Generation> shown;
  int64_t bytes = 0;
  for (auto it = generations->second.rbegin(); it != generations->second.rend() && shown.size() < kShown; ++it) {
    v1::Generation one = ToProto(it->second);
    bytes += static_cast<int64_t>(one.ByteSizeLong());
    if (bytes > kMaxPageBytes / 2 && !shown.empty()) break;
    shown.push_back(std::move(one));
  }
  for (auto it = shown.rbegin(); it != shown.rend(); ++it) *proto.add_generations() = std::move(*it);
  return proto;
}

}  // namespace athanor

#include "server/storage/record_codec.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/status_macros.h"
#include "athanor/storage/v1/records.pb.h"
#include "common/service/message_fields.h"
#include "common/service/message_text.h"
#include "server/convert/proto_convert.h"

namespace athanor {
namespace {

namespace records = storage::v1;

std::string Key(const core::JobEntry& job) {
  return absl::StrCat("j/", job.id.str());
}
std::string GenerationKey(const core::JobId& job, int64_t number) {
  return absl::StrFormat("g/%s/%08d", job.str(), number);
}
std::string CheckpointKey(const core::JobId& job, int64_t step) {
  return absl::StrFormat("c/%s/%012d", job.str(), step);
}
std::string Key(const core::GenerationEntry& generation) {
  return GenerationKey(generation.job, generation.number);
}
std::string Key(const core::CheckpointEntry& checkpoint) {
  return CheckpointKey(checkpoint.job, checkpoint.step);
}
std::string Key(const core::WorkerEntry& worker) {
  return absl::StrCat("w/", worker.id.str());
}
std::string Key(const core::JobEventEntry& event) {
  return EventKey(event.job, event.sequence);
}
std::string Key(const core::RequestEntry& request) {
  return absl::StrCat("r/", request.key);
}

records::JobRecord ToRecord(const core::JobEntry& job, const TimeFrame& frame) {
  records::JobRecord record;
  record.set_id(job.id.str());
  record.mutable_spec()->ParseFromString(job.spec.payload);
  record.set_state(static_cast<int32_t>(job.state));
  record.set_reason(job.reason);
  record.set_generation(job.generation);
  record.set_submit_order(job.submit_order);
  record.set_created_at(frame.Stored(job.created_at));
  record.set_started_at(frame.Stored(job.started_at));
  record.set_ended_at(frame.Stored(job.ended_at));
  record.set_queued_at(frame.Stored(job.queued_at));
  record.set_retry_at(frame.Stored(job.retry_at));
  for (const auto& [cause, count] : job.restarts_by_cause)
    (*record.mutable_restarts_by_cause())[static_cast<int32_t>(cause)] = count;
  record.set_generations_without_progress(job.generations_without_progress);
  record.set_best_progress_step(job.best_progress_step);
  if (job.last_cause.has_value()) *record.mutable_last_cause() = ToProto(*job.last_cause);
  records::GoodputRecord& goodput = *record.mutable_goodput();
  CopyToMessage(job.goodput, &goodput);
  goodput.set_accounted_until(frame.Stored(job.goodput.accounted_until));
  *record.mutable_last_progress() = ToProto(job.last_progress);
  record.mutable_aliases()->insert(job.aliases.begin(), job.aliases.end());
  record.set_parent(job.parent.str());
  record.set_parent_step(job.parent_step);
  record.set_max_step_seen(job.max_step_seen);
  record.set_next_event(job.next_event);
  record.set_version(job.version);
  record.set_seed(job.seed);
  record.set_scratch_generation(job.scratch_generation);
  record.set_keep_latest_k(job.spec.keep_latest_k);
  return record;
}

core::JobEntry FromRecord(const records::JobRecord& record, const TimeFrame& frame) {
  core::JobEntry job;
  job.id = core::JobId(record.id());
  job.spec = CoreSpec(record.spec(), record.has_keep_latest_k() ? record.keep_latest_k() : KeepLatestK(record.spec()));
  job.state = static_cast<core::JobState>(record.state());
  job.reason = record.reason();
  job.generation = record.generation();
  job.submit_order = record.submit_order();
  job.created_at = frame.Shown(record.created_at());
  job.started_at = frame.Shown(record.started_at());
  job.ended_at = frame.Shown(record.ended_at());
  job.queued_at = frame.Shown(record.queued_at());
  job.retry_at = frame.Shown(record.retry_at());
  for (const auto& [cause, count] : record.restarts_by_cause())
    job.restarts_by_cause[static_cast<core::CauseKind>(cause)] = count;
  job.generations_without_progress = record.generations_without_progress();
  job.best_progress_step = record.best_progress_step();
  if (record.has_last_cause()) job.last_cause = FromProto(record.last_cause());
  const records::GoodputRecord& goodput = record.goodput();
  CopyFromMessage(goodput, &job.goodput);
  job.goodput.accounted_until = frame.Shown(goodput.accounted_until());
  job.last_progress = FromProto(record.last_progress());
  job.aliases = {record.aliases().begin(), record.aliases().end()};
  job.parent = core::JobId(record.parent());
  job.parent_step = record.parent_step();
  job.max_step_seen = record.max_step_seen();
  job.next_event = record.next_event();
  job.version = record.version();
  job.seed = record.seed();
  job.scratch_generation = record.scratch_generation();
  return job;
}

records::GenerationRecord ToRecord(const core::GenerationEntry& generation, const TimeFrame& frame) {
  records::GenerationRecord record;
  record.set_job(generation.job.str());
  record.set_number(generation.number);
  record.set_state(static_cast<int32_t>(generation.state));
  for (const core::RankEntry& rank : generation.ranks) {
    records::RankRecord& one = *record.add_ranks();
    one.set_worker(rank.placement.worker.str());
    one.mutable_slots()->Add(rank.placement.slots.begin(), rank.placement.slots.end());
    one.set_state(static_cast<int32_t>(rank.state));
    one.set_said_finish(rank.said_finish);
    one.set_endpoint(rank.endpoint);
    *one.mutable_progress() = ToProto(rank.progress);
  }
  record.set_created_at(frame.Stored(generation.created_at));
  record.set_training_at(frame.Stored(generation.training_at));
  record.set_ended_at(frame.Stored(generation.ended_at));
  record.set_deadline(frame.Stored(generation.deadline));
  if (generation.cause.has_value()) *record.mutable_cause() = ToProto(*generation.cause);
  record.set_reason(generation.reason);
  record.set_resume_step(generation.resume_step);
  record.set_stop_for_suspend(generation.stop_for_suspend);
  record.set_stop_for_cancel(generation.stop_for_cancel);
  record.set_stop_for_preempt(generation.stop_for_preempt);
  return record;
}

core::GenerationEntry FromRecord(const records::GenerationRecord& record, const TimeFrame& frame) {
  core::GenerationEntry generation;
  generation.job = core::JobId(record.job());
  generation.number = record.number();
  generation.state = static_cast<core::GenerationState>(record.state());
  for (const records::RankRecord& one : record.ranks()) {
    core::RankEntry rank;
    rank.placement = {static_cast<core::Rank>(generation.ranks.size()),
                      core::WorkerId(one.worker()),
                      {one.slots().begin(), one.slots().end()}};
    rank.state = static_cast<core::RankState>(one.state());
    rank.said_finish = one.said_finish();
    rank.endpoint = one.endpoint();
    rank.progress = FromProto(one.progress());
    generation.ranks.push_back(std::move(rank));
  }
  generation.created_at = frame.Shown(record.created_at());
  generation.training_at = frame.Shown(record.training_at());
  generation.ended_at = frame.Shown(record.ended_at());
  generation.deadline = frame.Shown(record.deadline());
  if (record.has_cause()) generation.cause = FromProto(record.cause());
  generation.reason = record.reason();
  generation.resume_step = record.resume_step();
  generation.stop_for_suspend = record.stop_for_suspend();
  generation.stop_for_cancel = record.stop_for_cancel();
  generation.stop_for_preempt = record.stop_for_preempt();
  return generation;
}

records::CheckpointRecord ToRecord(const core::CheckpointEntry& checkpoint, const TimeFrame& frame) {
  records::CheckpointRecord record;
  record.set_job(checkpoint.job.str());
  record.set_step(checkpoint.step);
  record.set_generation(checkpoint.generation);
  record.set_state(static_cast<int32_t>(checkpoint.state));
  for (const auto& [rank, shard] : checkpoint.shards) {
    records::ShardRecord& one = *record.add_shards();
    one.set_rank(rank);
    one.set_file(shard.file);
    one.set_bytes(shard.bytes);
    one.set_crc32c(shard.crc32c);
  }
  record.set_shards_expected(checkpoint.shards_expected);
  record.set_bytes(checkpoint.bytes);
  record.mutable_metrics()->insert(checkpoint.metrics.begin(), checkpoint.metrics.end());
  record.set_is_best(checkpoint.is_best);
  record.set_created_at(frame.Stored(checkpoint.created_at));
  record.set_committed_at(frame.Stored(checkpoint.committed_at));
  record.set_note(checkpoint.note);
  record.set_save_seconds(checkpoint.save_seconds);
  record.set_storage(checkpoint.storage);
  return record;
}

core::CheckpointEntry FromRecord(const records::CheckpointRecord& record, const TimeFrame& frame) {
  core::CheckpointEntry checkpoint;
  checkpoint.job = core::JobId(record.job());
  checkpoint.step = record.step();
  checkpoint.generation = record.generation();
  checkpoint.state = static_cast<core::CheckpointState>(record.state());
  for (const records::ShardRecord& one : record.shards())
    checkpoint.shards[one.rank()] = {one.rank(), one.file(), one.bytes(), one.crc32c()};
  checkpoint.shards_expected = record.shards_expected();
  checkpoint.bytes = record.bytes();
  checkpoint.metrics = {record.metrics().begin(), record.metrics().end()};
  checkpoint.is_best = record.is_best();
  checkpoint.created_at = frame.Shown(record.created_at());
  checkpoint.committed_at = frame.Shown(record.committed_at());
  checkpoint.note = record.note();
  checkpoint.save_seconds = record.save_seconds();
  checkpoint.storage = record.storage();
  return checkpoint;
}

records::WorkerRecord ToRecord(const core::WorkerEntry& worker, const TimeFrame& frame) {
  records::WorkerRecord record;
  record.set_id(worker.id.str());
  record.set_state(static_cast<int32_t>(worker.state));
  record.set_incarnation(worker.incarnation);
  record.set_instance(worker.instance);
  record.set_host(worker.host);
  record.set_slots(worker.slots);
  record.set_device(worker.device);
  record.set_version(worker.version);
  record.mutable_labels()->insert(worker.labels.begin(), worker.labels.end());
  record.set_registered_at(frame.Stored(worker.registered_at));
  if (worker.lost_at != absl::InfinitePast()) record.set_lost_at(frame.Stored(worker.lost_at));
  record.set_drain(worker.drain);
  record.set_reason(worker.reason);
  record.set_quarantined_until(frame.Stored(worker.quarantined_until));
  record.set_quarantines(worker.quarantines);
  record.set_home(worker.home);
  return record;
}

core::WorkerEntry FromRecord(const records::WorkerRecord& record, const TimeFrame& frame) {
  core::WorkerEntry worker;
  worker.id = core::WorkerId(record.id());
  worker.state = static_cast<core::WorkerState>(record.state());
  worker.incarnation = record.incarnation();
  worker.instance = record.instance();
  worker.host = record.host();
  worker.slots = record.slots();
  worker.device = record.device();
  worker.version = record.version();
  worker.labels = {record.labels().begin(), record.labels().end()};
  worker.registered_at = frame.Shown(record.registered_at());
  if (record.has_lost_at()) worker.lost_at = frame.Shown(record.lost_at());
  worker.drain = record.drain();
  worker.reason = record.reason();
  worker.quarantined_until = frame.Shown(record.quarantined_until());
  worker.quarantines = std::max(0, record.quarantines());
  worker.home = record.home();
  return worker;
}

records::EventRecord ToRecord(const core::JobEventEntry& event, const TimeFrame& frame) {
  records::EventRecord record;
  record.set_job(event.job.str());
  record.set_sequence(event.sequence);
  record.set_time(frame.Stored(event.time));
  record.set_type(event.type);
  record.set_generation(event.generation);
  record.set_rank(event.rank);
  record.set_message(event.message);
  return record;
}

records::RequestRecord ToRecord(const core::RequestEntry& request, const TimeFrame& frame) {
  records::RequestRecord record;
  record.set_key(request.key);
  record.set_digest(request.digest);
  record.set_job(request.job.str());
  record.set_message(request.message);
  record.set_time(frame.Stored(request.time));
  record.set_step(request.step);
  return record;
}

core::RequestEntry FromRecord(const records::RequestRecord& record, const TimeFrame& frame) {
  return {record.key(),
          record.digest(),
          core::JobId(record.job()),
          record.message(),
          frame.Shown(record.time()),
          record.has_step() ? record.step() : -1};
}

template <typename Record>
bool Parse(std::string_view value, Record& record) {
  return record.ParseFromArray(value.data(), static_cast<int>(value.size()));
}

// ---- what the core relies on: empty, or what is wrong ----
constexpr int32_t kMaxSlots = 1024;  // of a worker, as at its registration
template <typename State>
std::string UnknownState(int32_t state, State last) {
  const bool known = state >= 1 && state <= static_cast<int32_t>(last);
  return known ? "" : absl::StrCat("state ", state, " is unknown to this version");
}

std::string Problem(const records::JobRecord& job) {
  for (const auto& [cause, count] : job.restarts_by_cause()) {
    if (cause < 0 || cause >= kCauseKinds) return absl::StrCat("cause ", cause, " is unknown to this version");
  }
  if (job.spec().resources().ranks() < 1) return absl::StrCat(job.spec().resources().ranks(), " ranks");
  if (job.generation() < 0 || job.next_event() < 1) return "a counter below its start";
  return UnknownState(job.state(), core::JobState::kCancelled);
}

std::string Problem(const records::GenerationRecord& generation) {
  if (generation.number() < 1 || generation.ranks().empty()) return "no number or no ranks";
  for (const records::RankRecord& rank : generation.ranks()) {
    std::string unknown = UnknownState(rank.state(), core::RankState::kExited);
    if (!unknown.empty()) return absl::StrCat("of a rank: ", unknown);
    for (const int32_t slot : rank.slots()) {
      if (slot < 0 || slot >= kMaxSlots) return absl::StrCat("slot ", slot);
    }
  }
  return UnknownState(generation.state(), core::GenerationState::kPreempted);
}

std::string Problem(const records::CheckpointRecord& checkpoint) {
  if (checkpoint.step() < 0) return absl::StrCat("step ", checkpoint.step());
  for (const records::ShardRecord& shard : checkpoint.shards()) {
    if (shard.rank() < 0 || shard.rank() >= checkpoint.shards_expected())
      return absl::StrCat("shard of rank ", shard.rank(), " of ", checkpoint.shards_expected());
  }
  return UnknownState(checkpoint.state(), core::CheckpointState::kDamaged);
}

std::string Problem(const records::WorkerRecord& worker) {
  if (worker.slots() < 0 || worker.slots() > kMaxSlots) return absl::StrCat(worker.slots(), " slots");
  return UnknownState(worker.state(), core::WorkerState::kQuarantined);
}

std::string Problem(const records::RequestRecord&) {
  return "";
}

std::string Problem(const records::EventRecord& event) {
  return event.sequence() < 1 ? absl::StrCat("sequence ", event.sequence()) : "";
}

template <typename Record>
auto Read(std::string_view key, std::string_view value, const TimeFrame& frame)
    -> absl::StatusOr<decltype(FromRecord(Record(), frame))> {
  const std::string name = absl::CHexEscape(std::string(key));
  Record record;
  if (!Parse(value, record))
    return absl::DataLossError(absl::StrCat("the record '", name, "' cannot be read (", value.size(), " bytes)"));
  if (std::string problem = Problem(record); !problem.empty())
    return absl::DataLossError(absl::StrCat("the record '", name, "' is damaged: ", problem));
  auto entry = FromRecord(record, frame);
  if (Key(entry) != key)
    return absl::DataLossError(absl::StrCat("the record '", name, "' says that it is '", Key(entry), "'"));
  return entry;
}

}  // namespace

std::string EventKey(const core::JobId& job, int64_t sequence) {
  return absl::StrFormat("e/%s/%012d", job.str(), sequence);
}

std::pair<std::string, std::string> EncodeRecord(const core::PutRecord& put, const TimeFrame& frame) {
  return std::visit(
      [&](const auto& entry) { return std::make_pair(Key(entry), ToRecord(entry, frame).SerializeAsString()); },
      put.record);
}

absl::StatusOr<std::pair<std::string, std::string>> EncodeChecked(const core::PutRecord& put, const TimeFrame& frame) {
  return std::visit(
      [&](const auto& entry) -> absl::StatusOr<std::pair<std::string, std::string>> {
        const auto record = ToRecord(entry, frame);
        std::string problem = Problem(record);
        if (problem.empty()) {
          if (const std::string field = FindInvalidText(record); !field.empty())
            problem = absl::StrCat(field, " is not UTF-8");
        }
        if (!problem.empty()) {
          return absl::InternalError(
              absl::StrCat("the record '", absl::CHexEscape(Key(entry)), "' could not be read back: ", problem));
        }
        return std::make_pair(Key(entry), record.SerializeAsString());
      },
      put.record);
}

std::string EncodeKey(const core::DeleteRecord& deletion) {
  using Kind = core::DeleteRecord::Kind;
  switch (deletion.kind) {
    case Kind::kJob:
      return absl::StrCat("j/", deletion.job.str());
    case Kind::kGeneration:
      return GenerationKey(deletion.job, deletion.number);
    case Kind::kCheckpoint:
      return CheckpointKey(deletion.job, deletion.number);
    case Kind::kWorker:
      return absl::StrCat("w/", deletion.key);
    case Kind::kEvent:
      return EventKey(deletion.job, deletion.number);
    case Kind::kRequest:
      return absl::StrCat("r/", deletion.key);
  }
  return {};
}

absl::Status DecodeInto(std::string_view key, std::string_view value, core::ClusterState& state,
                        const TimeFrame& frame) {
  const char kind = key.size() >= 2 && key[1] == '/' ? key[0] : '?';
  switch (kind) {
    case 'j': {
      ASSIGN_OR_RETURN(core::JobEntry job, Read<records::JobRecord>(key, value, frame));
      state.jobs[job.id] = std::move(job);
      return absl::OkStatus();
    }
    case 'g': {
      ASSIGN_OR_RETURN(core::GenerationEntry generation, Read<records::GenerationRecord>(key, value, frame));
      state.generations[generation.job][generation.number] = std::move(generation);
      return absl::OkStatus();
    }
    case 'c': {
      ASSIGN_OR_RETURN(core::CheckpointEntry checkpoint, Read<records::CheckpointRecord>(key, value, frame));
      state.checkpoints[checkpoint.job][checkpoint.step] = std::move(checkpoint);
      return absl::OkStatus();
    }
    case 'w': {
      ASSIGN_OR_RETURN(core::WorkerEntry worker, Read<records::WorkerRecord>(key, value, frame));
      state.workers[worker.id] = std::move(worker);
      return absl::OkStatus();
    }
    case 'r': {
      ASSIGN_OR_RETURN(core::RequestEntry request, Read<records::RequestRecord>(key, value, frame));
      state.requests[request.key] = std::move(request);
      return absl::OkStatus();
    }
    case 'e':
      return absl::OkStatus();
    default:
      return absl::DataLossError(
          absl::StrCat("the key '", absl::CHexEscape(std::string(key)), "' is of no kind that this version knows"));
  }
}

std::vector<std::string> Orphans(const core::ClusterState& state) {
  std::vector<std::string> keys;
  for (const auto& [job, generations] : state.generations) {
    if (state.jobs.contains(job)) continue;
    for (const auto& [number, generation] : generations) keys.push_back(Key(generation));
  }
  for (const auto& [job, checkpoints] : state.checkpoints) {
    if (state.jobs.contains(job)) continue;
    for (const auto& [step, checkpoint] : checkpoints) keys.push_back(Key(checkpoint));
  }
  return keys;
}

core::JobId JobOfKey(std::string_view key) {
  if (key.size() < 3 || key[1] != '/' || std::string_view("jgce").find(key[0]) == std::string_view::npos) return {};
  const std::string_view name = key.substr(2);
  return core::JobId(std::string(name.substr(0, name.find('/'))));
}

absl::StatusOr<core::JobEventEntry> DecodeEvent(std::string_view value, const TimeFrame& frame) {
  records::EventRecord record;
  if (!Parse(value, record)) return absl::DataLossError("an event record cannot be read");
  if (std::string problem = Problem(record); !problem.empty())
    return absl::DataLossError(absl::StrCat("an event record is damaged: ", problem));
  return core::JobEventEntry{core::JobId(record.job()),
                             record.sequence(),
                             frame.Shown(record.time()),
                             record.type(),
                             record.generation(),
                             record.rank(),
                             record.message()};
}

core::JobEventEntry ReadEvent(std::string_view key, std::string_view value, const TimeFrame& frame) {
  absl::StatusOr<core::JobEventEntry> event = DecodeEvent(value, frame);
  if (event.ok() && Key(*event) == key) return *std::move(event);
  core::JobEventEntry unreadable;
  unreadable.job = JobOfKey(key);
  const size_t slash = key.rfind('/');
  if (!absl::SimpleAtoi(absl::string_view(key.data() + slash + 1, key.size() - slash - 1), &unreadable.sequence))
    unreadable.sequence = 0;
  unreadable.type = "UnreadableEvent";
  unreadable.message = absl::StrCat("the record of this event is damaged (", value.size(), " bytes)");
  unreadable.time = absl::UnixEpoch();
  return unreadable;
}

}  // namespace athanor

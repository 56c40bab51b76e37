#include "tests/fuzz/fuzz_targets.h"

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "server/convert/proto_convert.h"
#include "server/core/coordinator_core.h"
#include "server/core/invariants.h"
#include "server/rpc/request_validation.h"
#include "server/storage/record_codec.h"

namespace athanor::fuzz {
namespace {

// Everything that was decoded is shown to people and starts a coordinator.
void Use(const core::ClusterState& state) {
  for (const auto& [id, worker] : state.workers) ToProto(worker, absl::UnixEpoch());
  for (const auto& [job, generations] : state.generations) {
    for (const auto& [number, generation] : generations) ToProto(generation);
  }
  if (!Orphans(state).empty()) return;
  core::CoordinatorCore core({}, state, absl::FromUnixSeconds(1'700'000'000));
  core.Recover(absl::FromUnixSeconds(1'700'000'000));
  const absl::Status sound = core::CheckInvariants(core.state());
  Promise(sound.ok(), "whatever could be read is made consistent");
  for (const auto& [id, job] : core.state().jobs) ToProto(core, job, "/root/job", /*detailed=*/true);
  for (const auto& [id, job] : state.jobs) core.Explain(id, absl::FromUnixSeconds(1'700'000'001));
}

template <typename Entries>
void EncodedAlike(const Entries& entries, std::string_view key) {
  for (const auto& [id, entry] : entries) {
    const auto [again, value] = EncodeRecord({entry});
    Promise(again == key, "a record keeps its key");
    core::ClusterState state;
    Promise(DecodeInto(again, value, state).ok(), "what was accepted is accepted again");
  }
}

void CheckSpec(const v1::JobSpec& spec) {
  const absl::Status status = CheckJobSpec(spec);
  if (!status.ok())
    return Promise(status.code() == absl::StatusCode::kInvalidArgument, "a bad request is INVALID_ARGUMENT");
  core::JobEntry job;
  job.id = core::JobId(spec.name() + "-1");
  job.spec = CoreSpec(spec);
  core::ClusterState state;
  const auto [key, value] = EncodeRecord({job});
  Promise(DecodeInto(key, value, state).ok(), "an accepted job can be stored and read back");
  Promise(state.jobs.at(job.id).spec.ranks == spec.resources().ranks(), "and is the same");
  const v1::JobSpec shown = WithoutSecrets(spec);
  for (const auto& [name, blank] : shown.env()) Promise(blank.empty(), "env values are blank");
}

}  // namespace

void RecordCodec(std::string_view input) {
  const size_t end = input.find('\n');
  if (end == std::string_view::npos) return;
  const std::string_view key = input.substr(0, end), value = input.substr(end + 1);
  core::ClusterState state;
  if (DecodeInto(key, value, state).ok()) {
    EncodedAlike(state.jobs, key);
    EncodedAlike(state.workers, key);
    EncodedAlike(state.requests, key);
    for (const auto& [job, generations] : state.generations) EncodedAlike(generations, key);
    for (const auto& [job, checkpoints] : state.checkpoints) EncodedAlike(checkpoints, key);
    Use(state);
  }
  if (const auto event = DecodeEvent(value); event.ok()) ToProto(*event);
}

void JobSpec(std::string_view input) {
  v1::JobSpec spec;
  if (!spec.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  CheckSpec(spec);
}

void JobSpecText(std::string_view input) {
  std::vector<std::string> lines = absl::StrSplit(absl::string_view(input.data(), input.size()), '\n');
  lines.resize(7);
  v1::JobSpec spec;
  spec.set_name(lines[0]);
  spec.mutable_task()->set_name(lines[1]);
  spec.mutable_task()->set_options_json(lines[2]);
  spec.set_runner_json(lines[3]);
  spec.mutable_resources()->set_ranks(1);
  spec.mutable_resources()->set_device(lines[4]);
  std::string wire;
  // What is no UTF-8 never gets past protobuf.
  if (!spec.SerializeToString(&wire) || !spec.ParseFromString(wire)) return;
  CheckSpec(spec);
  (void)CheckRequestKey(lines[5], true);
  if (CheckReference("job", lines[6]).ok()) {
    core::ClusterState state;
    (void)core::ResolveJob(state, lines[6]);
    state.jobs[core::JobId("a")].id = core::JobId("a");
    (void)core::ResolveCheckpoint(state, core::JobId("a"), lines[6]);
  }
}

}  // namespace athanor::fuzz

#include "server/runtime/effect_runner.h"

#include "absl/strings/str_cat.h"
#include "server/convert/proto_convert.h"
#include "server/observability/event_log.h"

namespace athanor {

void EffectRunner::Run(core::Effect& effect) {
  std::visit([this](auto& one) { Do(one); }, effect);
}

void EffectRunner::Do(core::PutRecord& put) {
  if (const auto* event = std::get_if<core::JobEventEntry>(&put.record)) LogJobEvent(*event);
}

void EffectRunner::Do(core::RankReply& reply) {
  v1::RankCallReply proto;
  proto.set_code(static_cast<int32_t>(reply.status.code()));
  proto.set_message(std::string(reply.status.message()));
  if (reply.status.ok() && reply.plan.world_size > 0) {
    v1::RendezvousPlan& plan = *proto.mutable_plan();
    plan.set_world_size(reply.plan.world_size);
    plan.set_store_endpoint(reply.plan.store_endpoint);
    plan.set_restarts(reply.plan.restarts);
    for (const core::ResumePoint& point : reply.plan.resume) {
      v1::ResumePoint& one = *plan.add_resume();
      one.set_step(point.step);
      one.set_path(absl::StrCat(JobDir(point.job), "/", core::CheckpointName(point.step)));
      one.set_weights_only(point.weights_only);
      one.set_storage(point.storage);
    }
  }
  for (const core::ShardEntry& shard : reply.shards) {
    v1::ShardInfo& one = *proto.add_shards();
    one.set_rank(shard.rank);
    one.set_file(shard.file);
    one.set_bytes(shard.bytes);
    one.set_crc32c(shard.crc32c);
  }
  sessions.AnswerRankCall(reply.call, std::move(proto));
}

void EffectRunner::Do(core::AcceptWorker& accept) {
  v1::CoordinatorMessage message;
  v1::Registered& registered = *message.mutable_registered();
  registered.set_incarnation(accept.incarnation);
  // The agent's own lease ends before ours does: ranks with strict fencing are gone when we give their slots away.
  const absl::Duration lease = core.options().lease;
  *registered.mutable_lease() = ToProto(lease * 0.8);
  *registered.mutable_heartbeat_interval() = ToProto(std::min(lease / 8, absl::Seconds(1)));
  for (const core::RankRef& id : accept.keep) *registered.add_keep() = ToProto(id);
  sessions.Bind(accept.session, accept.worker);
  sessions.Send(accept.session, std::move(message));
}

void EffectRunner::Do(core::RefuseWorker& refuse) {
  v1::CoordinatorMessage message;
  message.mutable_refused()->set_reason(refuse.reason);
  message.mutable_refused()->set_lease_over(refuse.lease_over);
  sessions.Send(refuse.session, std::move(message));
  sessions.Close(refuse.session, absl::FailedPreconditionError(refuse.reason));
}

void EffectRunner::Do(core::LaunchRanks& launch) {
  v1::LaunchRank common;
  common.set_world_size(launch.world_size);
  common.mutable_spec()->ParseFromString(launch.spec);
  common.set_job_dir(JobDir(launch.job));
  common.set_restarts(launch.restarts);
  for (const auto& [placement, local_rank] : launch.seats) {
    v1::CoordinatorMessage message;
    v1::LaunchRank& proto = *message.mutable_launch();
    proto = common;
    *proto.mutable_id() = ToProto(core::RankRef{launch.job, launch.generation, placement.rank});
    proto.set_local_rank(local_rank);
    proto.mutable_slots()->Add(placement.slots.begin(), placement.slots.end());
    sessions.SendToWorker(placement.worker, std::move(message));
  }
}

void EffectRunner::Do(core::StopTrainer& stop) {
  v1::CoordinatorMessage message;
  v1::StopRank& proto = *message.mutable_stop();
  *proto.mutable_id() = ToProto(stop.id);
  proto.set_mode(static_cast<v1::StopMode>(stop.mode));
  *proto.mutable_grace() = ToProto(stop.grace);
  proto.set_reason(stop.reason);
  proto.set_dump_stacks(stop.dump_stacks);
  sessions.SendToWorker(stop.worker, std::move(message));
}

void EffectRunner::Do(core::DeleteFiles& deletion) {
  v1::CoordinatorMessage message;
  v1::DeleteFiles& proto = *message.mutable_delete_files();
  proto.set_job(deletion.job.str());
  proto.set_step(deletion.step);
  proto.set_storage(deletion.storage);
  proto.set_path(absl::StrCat(JobDir(deletion.job), "/", core::CheckpointName(deletion.step)));
  sessions.SendToWorker(deletion.worker, std::move(message));
}

void EffectRunner::Do(core::Touched& touched) {
  if (touched.job.empty()) return;
  metrics.OnJobTouched(core.state(), touched.job);
  watches.Touch(touched.job);
}

void EffectRunner::Do(core::Note& note) {
  metrics.OnNote(note);
  LogNote(note);
}

}  // namespace athanor

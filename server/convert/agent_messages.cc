#include "server/convert/agent_messages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "athanor/base/utf8_text.h"
#include "server/convert/proto_convert.h"

namespace athanor {
namespace {

constexpr size_t kReasonBytes = 1024, kStacksInEvent = 4096, kStorageBytes = 64;

core::WorkerHeartbeat EventOf(const v1::Heartbeat& message, core::SessionId session, const core::WorkerId& worker) {
  core::WorkerHeartbeat event{session, worker, 0, {}, message.leaving()};
  for (const v1::RankReport& report : message.reports()) {
    event.reports.push_back({FromProto(report.id()), FromProto(report.progress()),
                             std::max(FromProto(report.age()), absl::ZeroDuration())});
  }
  return event;
}

core::RankExited EventOf(const v1::RankExited& exited, core::SessionId session, const core::WorkerId& worker) {
  core::RankExited event{
      session, worker, FromProto(exited.id()), std::nullopt, exited.finished(), exited.newest_generation()};
  if (exited.has_cause()) event.cause = FromProto(exited.cause());
  return event;
}

std::optional<core::Event> EventOf(const v1::RankCall& message, const core::WorkerId& worker, core::CallId call) {
  const core::RankRef id = FromProto(message.id());
  switch (message.request_case()) {
    case v1::RankCall::kJoin:
      return core::RankJoined{call, worker, id, message.join().endpoint()};
    case v1::RankCall::kCommitShard: {
      const v1::ShardInfo& shard = message.commit_shard().shard();
      return core::ShardCommitted{
          call, worker, id, message.commit_shard().step(), {shard.rank(), shard.file(), shard.bytes(), shard.crc32c()}};
    }
    case v1::RankCall::kCommitManifest: {
      const v1::CommitManifest& manifest = message.commit_manifest();
      return core::ManifestCommitted{call,
                                     worker,
                                     id,
                                     manifest.step(),
                                     manifest.bytes(),
                                     BoundedMetrics(manifest.metrics(), kMaxCheckpointMetrics),
                                     manifest.is_best(),
                                     manifest.save_seconds(),
                                     CutUtf8(manifest.storage(), kStorageBytes)};
    }
    case v1::RankCall::kReportEvaluation: {
      const v1::ReportEvaluation& evaluation = message.report_evaluation();
      return core::EvaluationReported{call,
                                      worker,
                                      id,
                                      evaluation.step(),
                                      BoundedMetrics(evaluation.metrics(), kMaxCheckpointMetrics),
                                      evaluation.is_best()};
    }
    case v1::RankCall::kFinish:
      return core::RankFinished{call, worker, id, FromProto(message.finish().progress())};
    case v1::RankCall::kReportDamage:
      return core::CheckpointDamaged{call, worker, id, message.report_damage().step(),
                                     CutUtf8(message.report_damage().reason(), kReasonBytes)};
    case v1::RankCall::kAbandonCheckpoint:
      return core::CheckpointAbandoned{call, worker, id, message.abandon_checkpoint().step(),
                                       CutUtf8(message.abandon_checkpoint().reason(), kReasonBytes)};
    default:
      return std::nullopt;
  }
}

}  // namespace

core::WorkerRegistered EventOf(const v1::Register& message, core::SessionId session) {
  core::WorkerRegistered event;
  event.session = session;
  event.worker = core::WorkerId(message.worker());
  event.incarnation = message.incarnation();
  event.instance = message.instance();
  event.home = message.home();
  event.host = message.host();
  event.device = message.device().empty() ? "cpu" : message.device();
  event.version = message.version();
  event.slots = message.slots();
  event.labels = {message.labels().begin(), message.labels().end()};
  for (const v1::RunningRank& rank : message.running()) {
    event.running.push_back(
        {FromProto(rank.id()), {rank.slots().begin(), rank.slots().end()}, FromProto(rank.progress())});
  }
  return event;
}

std::optional<core::Event> EventOf(const v1::AgentMessage& message, core::SessionId session,
                                   const core::WorkerId& worker, core::CallId call) {
  switch (message.body_case()) {
    case v1::AgentMessage::kHeartbeat:
      return EventOf(message.heartbeat(), session, worker);
    case v1::AgentMessage::kLaunched:
      return core::RankLaunched{session, worker, FromProto(message.launched().id()), message.launched().pid()};
    case v1::AgentMessage::kExited:
      return EventOf(message.exited(), session, worker);
    case v1::AgentMessage::kCall:
      return EventOf(message.call(), worker, call);
    case v1::AgentMessage::kFilesDeleted: {
      const v1::FilesDeleted& deleted = message.files_deleted();
      return core::FilesDeleted{worker, core::JobId(deleted.job()), deleted.step(),
                                CutUtf8(deleted.error(), kReasonBytes)};
    }
    case v1::AgentMessage::kStacks:
      return core::RankStacks{worker, FromProto(message.stacks().id()),
                              CutUtf8(message.stacks().text(), kStacksInEvent)};
    default:
      return std::nullopt;
  }
}

v1::CoordinatorMessage MessageOf(const core::AcceptWorker& accept, absl::Duration lease) {
  v1::CoordinatorMessage message;
  v1::Registered& registered = *message.mutable_registered();
  registered.set_incarnation(accept.incarnation);
  // The agent's own lease ends before ours does: ranks with strict fencing are gone when we give their slots away.
  *registered.mutable_lease() = ToProto(lease * 0.8);
  *registered.mutable_heartbeat_interval() = ToProto(std::min(lease / 8, absl::Seconds(1)));
  for (const core::RankRef& id : accept.keep) *registered.add_keep() = ToProto(id);
  return message;
}

v1::CoordinatorMessage MessageOf(const core::RefuseWorker& refuse) {
  v1::CoordinatorMessage message;
  message.mutable_refused()->set_reason(refuse.reason);
  message.mutable_refused()->set_lease_over(refuse.lease_over);
  return message;
}

v1::CoordinatorMessage MessageOf(const core::StopTrainer& stop) {
  v1::CoordinatorMessage message;
  v1::StopRank& proto = *message.mutable_stop();
  *proto.mutable_id() = ToProto(stop.id);
  proto.set_mode(static_cast<v1::StopMode>(stop.mode));
  *proto.mutable_grace() = ToProto(stop.grace);
  proto.set_reason(stop.reason);
  proto.set_dump_stacks(stop.dump_stacks);
  return message;
}

v1::CoordinatorMessage MessageOf(const core::DeleteFiles& deletion, const std::string& checkpoint_root) {
  v1::CoordinatorMessage message;
  v1::DeleteFiles& proto = *message.mutable_delete_files();
  proto.set_job(deletion.job.str());
  proto.set_step(deletion.step);
  proto.set_storage(deletion.storage);
  proto.set_path(absl::StrCat(JobDir(checkpoint_root, deletion.job), "/", core::CheckpointName(deletion.step)));
  return message;
}

std::vector<std::pair<core::WorkerId, v1::CoordinatorMessage>> MessagesOf(const core::LaunchRanks& launch,
                                                                          const std::string& checkpoint_root) {
  v1::LaunchRank common;
  common.set_world_size(launch.world_size);
  common.mutable_spec()->ParseFromString(launch.spec);
  common.set_job_dir(JobDir(checkpoint_root, launch.job));
  common.set_restarts(launch.restarts);
  std::vector<std::pair<core::WorkerId, v1::CoordinatorMessage>> messages;
  for (const auto& [placement, local_rank] : launch.seats) {
    v1::LaunchRank& proto = *messages.emplace_back(placement.worker, v1::CoordinatorMessage()).second.mutable_launch();
    proto = common;
    *proto.mutable_id() = ToProto(core::RankRef{launch.job, launch.generation, placement.rank});
    proto.set_local_rank(local_rank);
    proto.mutable_slots()->Add(placement.slots.begin(), placement.slots.end());
  }
  return messages;
}

v1::RankCallReply ReplyOf(const core::RankReply& reply, const std::string& checkpoint_root) {
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
      one.set_path(absl::StrCat(JobDir(checkpoint_root, point.job), "/", core::CheckpointName(point.step)));
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
  return proto;
}

std::string JobDir(const std::string& checkpoint_root, const core::JobId& job) {
  return absl::StrCat(checkpoint_root, "/", job.str());
}

}  // namespace athanor

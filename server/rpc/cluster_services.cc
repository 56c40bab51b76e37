#include "server/rpc/cluster_services.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "common/service/channel.h"
#include "server/convert/proto_convert.h"
#include "server/rpc/job_reference.h"
#include "server/rpc/request_validation.h"

namespace athanor {
namespace {

// Answers a verb whose response is the entry as it is after the verb: runs the verb, then reads.
template <typename CheckFn, typename MakeFn, typename ReadFn>
grpc::ServerUnaryReactor* VerbThenRead(const RpcContext& rpc, grpc::CallbackServerContext* context, const char* method,
                                       CheckFn check, const MakeFn& make, const ReadFn& read) {
  const UnaryCall call(rpc, context, method);
  absl::Status status = call.authorized();
  if (status.ok()) status = check();
  if (!status.ok()) {
    call.Finish(status);
    return call.reactor();
  }
  CoreLoop* loop = rpc.loop;
  loop->PostVerb(make, [loop, call, read](const core::Reply& reply) {
    if (!reply.status.ok()) return call.Finish(reply.status);
    loop->PostRead([call, read, reply](const core::CoordinatorCore& core, absl::Time now) {
      read(core, reply, now);
      call.Finish(absl::OkStatus());
    });
  });
  return call.reactor();
}

void FillCheckpoint(const core::CoordinatorCore& core, const CoreLoop& loop, const core::JobId& id, core::Step step,
                    v1::Checkpoint* response) {
  auto job = core.state().jobs.find(id);
  auto checkpoints = core.state().checkpoints.find(id);
  if (job != core.state().jobs.end() && checkpoints != core.state().checkpoints.end()) {
    auto it = checkpoints->second.find(step);
    if (it != checkpoints->second.end()) {
      *response = ToProto(it->second, job->second, loop.JobDir(id));
      return;
    }
  }
  // A verb that is repeated after its checkpoint has gone.
  response->set_job(id.str());
  response->set_step(step);
  response->set_name(core::CheckpointName(step));
  response->set_note("is deleted");
}

absl::Status FillList(const core::CoordinatorCore& core, const CoreLoop& loop, grpc::CallbackServerContext* context,
                      const v1::ListCheckpointsRequest& request, v1::ListCheckpointsResponse& response) {
  core::Step before = std::numeric_limits<core::Step>::max();
  if (!request.page_token().empty() && !absl::SimpleAtoi(request.page_token(), &before)) {
    return absl::InvalidArgumentError("page_token: give back next_page_token as it was");
  }
  ASSIGN_OR_RETURN(const core::JobId id, ResolveWithNote(core, request.job(), context));
  const int size = request.page_size() <= 0 ? 100 : std::min(request.page_size(), 1000);
  auto checkpoints = core.state().checkpoints.find(id);
  if (checkpoints == core.state().checkpoints.end()) return absl::OkStatus();
  const core::JobEntry& job = core.state().jobs.at(id);
  int64_t bytes = 0;
  for (auto it = std::make_reverse_iterator(checkpoints->second.lower_bound(before)); it != checkpoints->second.rend();
       ++it) {
    const core::CheckpointState state = it->second.state;
    if (!request.all_states() && state != core::CheckpointState::kCommitted && state != core::CheckpointState::kDamaged)
      continue;
    if (response.checkpoints_size() == size || bytes >= kMaxPageBytes) {
      response.set_next_page_token(absl::StrCat(response.checkpoints().rbegin()->step()));
      break;
    }
    *response.add_checkpoints() = ToProto(it->second, job, loop.JobDir(id));
    bytes += static_cast<int64_t>(response.checkpoints().rbegin()->ByteSizeLong());
  }
  return absl::OkStatus();
}

absl::Status CheckWorkerVerb(const v1::WorkerVerbRequest& request) {
  RETURN_IF_ERROR(CheckName("worker", request.worker(), 128));
  return CheckRequestKey(request.request_key(), true);
}

template <typename EventType>
grpc::ServerUnaryReactor* WorkerVerb(const RpcContext& rpc, grpc::CallbackServerContext* context, const char* method,
                                     const v1::WorkerVerbRequest& request, v1::Worker* response) {
  EventType event;
  event.request = {request.request_key(), RequestDigest(method, request)};
  event.worker = core::WorkerId(request.worker());
  return VerbThenRead(
      rpc, context, method, [&] { return CheckWorkerVerb(request); },
      [event](core::CallId call) mutable {
        event.call = call;
        return core::Event(event);
      },
      [worker = event.worker, response](const core::CoordinatorCore& core, const core::Reply&, absl::Time now) {
        auto it = core.state().workers.find(worker);
        if (it != core.state().workers.end()) *response = ToProto(it->second, now);
      });
}

}  // namespace

grpc::ServerUnaryReactor* CheckpointServiceImpl::ListCheckpoints(Context* context,
                                                                 const v1::ListCheckpointsRequest* request,
                                                                 v1::ListCheckpointsResponse* response) {
  return RunRead(rpc_, context, "ListCheckpoints",
                 [this, context, request, response](const core::CoordinatorCore& core, absl::Time) {
                   return FillList(core, *rpc_.loop, context, *request, *response);
                 });
}

grpc::ServerUnaryReactor* CheckpointServiceImpl::GetCheckpoint(Context* context,
                                                               const v1::GetCheckpointRequest* request,
                                                               v1::Checkpoint* response) {
  return RunRead(rpc_, context, "GetCheckpoint",
                 [this, context, request, response](const core::CoordinatorCore& core, absl::Time) -> absl::Status {
                   RETURN_IF_ERROR(CheckReference("checkpoint", request->checkpoint()));
                   ASSIGN_OR_RETURN(const core::JobId id, ResolveWithNote(core, request->job(), context));
                   ASSIGN_OR_RETURN(const core::Step step,
                                    core::ResolveCheckpoint(core.state(), id, request->checkpoint()));
                   FillCheckpoint(core, *rpc_.loop, id, step, response);
                   return absl::OkStatus();
                 });
}

grpc::ServerUnaryReactor* CheckpointServiceImpl::TagCheckpoint(Context* context,
                                                               const v1::TagCheckpointRequest* request,
                                                               v1::Checkpoint* response) {
  core::TagCheckpoint event;
  event.request = {request->request_key(), RequestDigest("TagCheckpoint", *request)};
  event.job = request->job();
  event.checkpoint = request->checkpoint();
  event.tag = request->tag();
  if (request->compare()) event.expected = request->expected_step();
  auto check = [request]() -> absl::Status {
    RETURN_IF_ERROR(CheckReference("job", request->job()));
    RETURN_IF_ERROR(CheckReference("checkpoint", request->checkpoint()));
    RETURN_IF_ERROR(CheckName("tag", request->tag()));
    return CheckRequestKey(request->request_key(), true);
  };
  auto make = [event](core::CallId call) mutable {
    event.call = call;
    return core::Event(event);
  };
  return VerbThenRead(rpc_, context, "TagCheckpoint", check, make,
                      [this, context, job = request->job(), response](const core::CoordinatorCore& core,
                                                                      const core::Reply& reply, absl::Time) {
                        NoteTaken(core, job, reply.job, context);
                        FillCheckpoint(core, *rpc_.loop, reply.job, reply.step, response);
                      });
}

grpc::ServerUnaryReactor* CheckpointServiceImpl::UntagCheckpoint(Context* context,
                                                                 const v1::UntagCheckpointRequest* request,
                                                                 v1::Checkpoint* response) {
  core::UntagCheckpoint event;
  event.request = {request->request_key(), RequestDigest("UntagCheckpoint", *request)};
  event.job = request->job();
  event.tag = request->tag();
  if (request->compare()) event.expected = request->expected_step();
  auto check = [request]() -> absl::Status {
    RETURN_IF_ERROR(CheckReference("job", request->job()));
    RETURN_IF_ERROR(CheckName("tag", request->tag()));
    return CheckRequestKey(request->request_key(), true);
  };
  auto make = [event](core::CallId call) mutable {
    event.call = call;
    return core::Event(event);
  };
  return VerbThenRead(rpc_, context, "UntagCheckpoint", check, make,
                      [this, context, job = request->job(), response](const core::CoordinatorCore& core,
                                                                      const core::Reply& reply, absl::Time) {
                        NoteTaken(core, job, reply.job, context);
                        FillCheckpoint(core, *rpc_.loop, reply.job, reply.step, response);
                      });
}

grpc::ServerUnaryReactor* CheckpointServiceImpl::DeleteCheckpoint(Context* context,
                                                                  const v1::DeleteCheckpointRequest* request,
                                                                  v1::DeleteCheckpointResponse* response) {
  core::DeleteCheckpoint event;
  event.request = {request->request_key(), RequestDigest("DeleteCheckpoint", *request)};
  event.job = request->job();
  event.checkpoint = request->checkpoint();
  event.dry_run = request->dry_run();
  auto check = [request]() -> absl::Status {
    RETURN_IF_ERROR(CheckReference("job", request->job()));
    RETURN_IF_ERROR(CheckReference("checkpoint", request->checkpoint()));
    return CheckRequestKey(request->request_key(), !request->dry_run());
  };
  auto make = [event](core::CallId call) mutable {
    event.call = call;
    return core::Event(event);
  };
  return VerbThenRead(rpc_, context, "DeleteCheckpoint", check, make,
                      [this, context, job = request->job(), response](const core::CoordinatorCore& core,
                                                                      const core::Reply& reply, absl::Time) {
                        NoteTaken(core, job, reply.job, context);
                        response->set_message(reply.message);
                        FillCheckpoint(core, *rpc_.loop, reply.job, reply.step, response->mutable_checkpoint());
                      });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ListWorkers(Context* context, const v1::ListWorkersRequest* request,
                                                         v1::ListWorkersResponse* response) {
  return RunRead(rpc_, context, "ListWorkers", [request, response](const core::CoordinatorCore& core, absl::Time now) {
    const int size = request->page_size() <= 0 ? 1000 : std::min(request->page_size(), 1000);
    int64_t bytes = 0;
    const auto& workers = core.state().workers;
    for (auto it = workers.upper_bound(core::WorkerId(request->page_token())); it != workers.end(); ++it) {
      if (response->workers_size() == size || bytes >= kMaxPageBytes) {
        response->set_next_page_token(response->workers().rbegin()->id());
        break;
      }
      *response->add_workers() = ToProto(it->second, now);
      bytes += static_cast<int64_t>(response->workers().rbegin()->ByteSizeLong());
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::DrainWorker(Context* context, const v1::WorkerVerbRequest* request,
                                                         v1::Worker* response) {
  return WorkerVerb<core::DrainWorker>(rpc_, context, "DrainWorker", *request, response);
}

grpc::ServerUnaryReactor* WorkerServiceImpl::UndrainWorker(Context* context, const v1::WorkerVerbRequest* request,
                                                           v1::Worker* response) {
  return WorkerVerb<core::UndrainWorker>(rpc_, context, "UndrainWorker", *request, response);
}

grpc::ServerUnaryReactor* ClusterServiceImpl::GetStatus(grpc::CallbackServerContext* context,
                                                        const v1::GetStatusRequest*, v1::ClusterStatus* response) {
  return RunRead(rpc_, context, "GetStatus", [this, response](const core::CoordinatorCore& core, absl::Time) {
    const core::ClusterState& state = core.state();
    response->set_version(Version());
    response->set_commit(Commit());
    *response->mutable_started_at() = ToProto(rpc_.started_at);
    for (const auto& [id, job] : state.jobs)
      ++(*response->mutable_jobs_by_state())[absl::AsciiStrToUpper(core::ToString(job.state))];
    for (const auto& [id, worker] : state.workers) {
      ++(*response->mutable_workers_by_state())[absl::AsciiStrToUpper(core::ToString(worker.state))];
      if (worker.state == core::WorkerState::kLost || worker.state == core::WorkerState::kQuarantined) continue;
      response->set_slots_total(response->slots_total() + worker.slots);
      response->set_slots_free(response->slots_free() + worker.slots - static_cast<int32_t>(worker.used.size()));
    }
    int64_t checkpoints = 0;
    for (const auto& [id, all] : state.checkpoints) checkpoints += static_cast<int64_t>(all.size());
    response->set_checkpoints(checkpoints);
    const absl::Status store = rpc_.loop->StoreStatus();
    response->set_store_writable(store.ok());
    response->set_store_error(std::string(store.message()));
    response->set_epoch(rpc_.loop->store().epoch());
    constexpr size_t kShown = 100;
    for (const RecordAside& aside : rpc_.loop->store().aside()) {
      if (static_cast<size_t>(response->records_put_aside_size()) == kShown) break;
      v1::RecordPutAside& one = *response->add_records_put_aside();
      one.set_key(aside.key);
      one.set_problem(aside.problem);
      *one.mutable_time() = ToProto(aside.time);
    }
    return absl::OkStatus();
  });
}

}  // namespace athanor

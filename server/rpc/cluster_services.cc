#include "server/rpc/cluster_services.h"

#include "athanor/base/status_macros.h"
#include "server/convert/proto_convert.h"
#include "server/rpc/job_reference.h"
#include "server/rpc/request_validation.h"
#include "server/views/checkpoint_views.h"
#include "server/views/cluster_views.h"

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
  } else {
    rpc.loop->PostVerb(make, [loop = rpc.loop, call, read](const core::Reply& reply) {
      if (!reply.status.ok()) return call.Finish(reply.status);
      loop->PostRead([call, read, reply](const core::CoordinatorCore& core, absl::Time now) {
        read(core, reply, now);
        call.Finish(absl::OkStatus());
      });
    });
  }
  return call.reactor();
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
                 [this, context, request, response](const core::CoordinatorCore& core, absl::Time) -> absl::Status {
                   ASSIGN_OR_RETURN(const core::JobId id, ResolveWithNote(core, request->job(), context));
                   ASSIGN_OR_RETURN(*response, ShowCheckpoints(core, id, rpc_.loop->JobDir(id), *request));
                   return absl::OkStatus();
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
                   *response = ShowCheckpoint(core, id, step, rpc_.loop->JobDir(id));
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
                        *response = ShowCheckpoint(core, reply.job, reply.step, rpc_.loop->JobDir(reply.job));
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
                        *response = ShowCheckpoint(core, reply.job, reply.step, rpc_.loop->JobDir(reply.job));
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
                        *response->mutable_checkpoint() =
                            ShowCheckpoint(core, reply.job, reply.step, rpc_.loop->JobDir(reply.job));
                      });
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ListWorkers(Context* context, const v1::ListWorkersRequest* request,
                                                         v1::ListWorkersResponse* response) {
  return RunRead(rpc_, context, "ListWorkers", [request, response](const core::CoordinatorCore& core, absl::Time now) {
    *response = ShowWorkers(core, *request, now);
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
    *response = ShowCluster(core, rpc_.loop->store(), rpc_.loop->StoreStatus(), rpc_.started_at);
    return absl::OkStatus();
  });
}

}  // namespace athanor

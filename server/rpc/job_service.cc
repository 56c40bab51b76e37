#include "server/rpc/job_service.h"

#include <functional>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "server/convert/proto_convert.h"
#include "server/rpc/job_changes.h"
#include "server/rpc/job_reference.h"
#include "server/rpc/log_stream.h"
#include "server/rpc/request_validation.h"
#include "server/rpc/watch_stream.h"
#include "server/views/job_views.h"

namespace athanor {
namespace {

uint64_t Random() {
  thread_local std::mt19937_64 engine{(static_cast<uint64_t>(std::random_device{}()) << 32) ^ std::random_device{}()};
  return engine();
}

core::JobId NewJobId(const std::string& name) {
  constexpr char kAlphabet[] = "abcdefghijkmnpqrstuvwxyz23456789";  // 32 letters that nobody confuses
  std::string suffix;
  uint64_t bits = Random();
  for (int i = 0; i < 8; ++i, bits >>= 5) suffix.push_back(kAlphabet[bits & 31]);
  return core::JobId(absl::StrCat(name, "-", suffix));
}

absl::Status CheckVerb(const v1::JobVerbRequest& request) {
  RETURN_IF_ERROR(CheckReference("job", request.job()));
  if (request.reason().size() > 1024) return absl::InvalidArgumentError("reason: at most 1024 bytes");
  RETURN_IF_ERROR(CheckChanges(request.set()));
  return CheckRequestKey(request.request_key(), true);
}

template <typename EventType>
grpc::ServerUnaryReactor* JobVerb(const RpcContext& rpc, grpc::CallbackServerContext* context, const char* method,
                                  const v1::JobVerbRequest& request, v1::JobVerbResponse* response,
                                  std::function<std::string(const core::Reply&)> message = nullptr) {
  EventType event;
  event.request = {request.request_key(), RequestDigest(method, request)};
  event.job = request.job();
  event.reason = request.reason();
  if constexpr (std::is_same_v<EventType, core::ResumeJob>) {
    event.from_scratch = request.from_scratch();
    if (request.set_size() > 0) {
      event.change = [set = request.set(), from_scratch = request.from_scratch()](const core::JobSpec& spec) {
        return ChangeSpec(spec, set, from_scratch);
      };
      event.changes = absl::StrJoin(request.set(), ", ");
    }
  }
  const UnaryCall call(rpc, context, method);
  absl::Status status = call.authorized();
  if (status.ok()) status = CheckVerb(request);
  if (!status.ok()) {
    call.Finish(status);
    return call.reactor();
  }
  const auto make = [event](core::CallId id) mutable {
    event.call = id;
    return core::Event(event);
  };
  rpc.loop->PostVerb(
      make, [loop = rpc.loop, call, context, reference = request.job(), response, message](const core::Reply& reply) {
        response->set_job(reply.job.str());
        response->set_state(static_cast<v1::JobState>(reply.job_state));
        response->set_message(message ? message(reply) : reply.message);
        if (!reply.status.ok() || reply.job.str() == reference) return call.Finish(reply.status);
        loop->PostRead([call, context, reference, job = reply.job](const core::CoordinatorCore& core, absl::Time) {
          NoteTaken(core, reference, job, context);
          call.Finish(absl::OkStatus());
        });
      });
  return call.reactor();
}

}  // namespace

grpc::ServerUnaryReactor* JobServiceImpl::SubmitJob(Context* context, const v1::SubmitJobRequest* request,
                                                    v1::SubmitJobResponse* response) {
  core::SubmitJob event;
  auto check = [&]() -> absl::Status {
    RETURN_IF_ERROR(CheckRequestKey(request->request_key(), !request->dry_run()));
    ASSIGN_OR_RETURN(event.spec, TakeJobSpec(request->spec()));
    event.request = {request->request_key(), RequestDigest("SubmitJob", request->spec())};
    event.id = NewJobId(request->spec().name());
    event.dry_run = request->dry_run();
    event.seed = Random();
    return absl::OkStatus();
  };
  auto make = [&event](core::CallId call) {
    event.call = call;
    return core::Event(event);
  };
  return RunVerb(rpc_, context, "SubmitJob", check, make, [response](const core::Reply& reply) {
    response->set_job(reply.job.str());
    response->set_created(reply.created);
    response->set_placement(reply.message);
    response->set_queue_position(reply.queue_position);
    for (const core::Placement& seat : reply.placement) {
      v1::RankPlacement& one = *response->add_ranks();
      one.set_rank(seat.rank);
      one.set_worker(seat.worker.str());
      one.mutable_slots()->Add(seat.slots.begin(), seat.slots.end());
    }
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(Context* context, const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  return RunRead(rpc_, context, "GetJob",
                 [this, context, request, response](const core::CoordinatorCore& core, absl::Time) -> absl::Status {
                   ASSIGN_OR_RETURN(const core::JobId id, ResolveWithNote(core, request->job(), context));
                   *response = ToProto(core, core.state().jobs.at(id), rpc_.loop->JobDir(id), /*detailed=*/true);
                   return absl::OkStatus();
                 });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(Context* context, const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  return RunRead(rpc_, context, "ListJobs",
                 [this, request, response](const core::CoordinatorCore& core, absl::Time) -> absl::Status {
                   const auto job_dir = [this](const core::JobId& job) { return rpc_.loop->JobDir(job); };
                   ASSIGN_OR_RETURN(*response, ShowJobs(core, job_dir, *request));
                   return absl::OkStatus();
                 });
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(Context* context, const v1::JobVerbRequest* request,
                                                    v1::JobVerbResponse* response) {
  return JobVerb<core::CancelJob>(rpc_, context, "CancelJob", *request, response);
}

grpc::ServerUnaryReactor* JobServiceImpl::SuspendJob(Context* context, const v1::JobVerbRequest* request,
                                                     v1::JobVerbResponse* response) {
  return JobVerb<core::SuspendJob>(rpc_, context, "SuspendJob", *request, response);
}

grpc::ServerUnaryReactor* JobServiceImpl::ResumeJob(Context* context, const v1::JobVerbRequest* request,
                                                    v1::JobVerbResponse* response) {
  return JobVerb<core::ResumeJob>(rpc_, context, "ResumeJob", *request, response);
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(Context* context, const v1::JobVerbRequest* request,
                                                    v1::JobVerbResponse* response) {
  return JobVerb<core::DeleteJob>(rpc_, context, "DeleteJob", *request, response, [this](const core::Reply& reply) {
    return absl::StrCat(reply.message, " in ", rpc_.loop->JobDir(reply.job));
  });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListEvents(Context* context, const v1::ListEventsRequest* request,
                                                     v1::ListEventsResponse* response) {
  return RunRead(rpc_, context, "ListEvents",
                 [this, context, request, response](const core::CoordinatorCore& core, absl::Time) -> absl::Status {
                   ASSIGN_OR_RETURN(const core::JobId id, ResolveWithNote(core, request->job(), context));
                   ASSIGN_OR_RETURN(*response, ShowEvents(rpc_.loop->store(), id, *request));
                   return absl::OkStatus();
                 });
}

grpc::ServerUnaryReactor* JobServiceImpl::ExplainJob(Context* context, const v1::GetJobRequest* request,
                                                     v1::ExplainJobResponse* response) {
  return RunRead(rpc_, context, "ExplainJob",
                 [this, context, request, response](const core::CoordinatorCore& core, absl::Time now) -> absl::Status {
                   ASSIGN_OR_RETURN(const core::JobId id, ResolveWithNote(core, request->job(), context));
                   ASSIGN_OR_RETURN(*response, athanor::ExplainJob(core, rpc_.loop->store(), id, now));
                   return absl::OkStatus();
                 });
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobServiceImpl::WatchJob(Context* context,
                                                                         const v1::WatchJobRequest* request) {
  return StartWatch(rpc_, context, *request);
}

grpc::ServerWriteReactor<v1::LogChunk>* JobServiceImpl::ReadLogs(Context* context, const v1::ReadLogsRequest* request) {
  return StartLogStream(rpc_, context, *request);
}

}  // namespace athanor

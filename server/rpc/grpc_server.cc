#include "server/rpc/grpc_server.h"

#include <grpcpp/client_context.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "common/service/listener.h"
#include "common/service/unreadable_requests.h"
#include "server/rpc/agent_service.h"
#include "server/rpc/cluster_services.h"
#include "server/rpc/job_service.h"

namespace athanor {
namespace {

constexpr int64_t kDescriptorsKept = 128;  // for the store, logs and the metrics endpoint

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  if (path.empty()) return std::string();
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return absl::NotFoundError(absl::StrCat("cannot read the token file ", path));
  if ((info.st_mode & (S_IROTH | S_IWOTH)) != 0)
    return absl::FailedPreconditionError(absl::StrCat(path, " is open to everyone; chmod 600 it"));
  std::ifstream file(path);
  std::string token;
  std::getline(file, token);
  token = std::string(absl::StripAsciiWhitespace(token));
  if (token.size() < 16)
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds ", token.size(), " characters; a token has at least 16"));
  return token;
}

class GrpcServerImpl : public GrpcServer {
 public:
  explicit GrpcServerImpl(RpcContext rpc)
      : rpc_(std::move(rpc)), jobs_(rpc_), checkpoints_(rpc_), workers_(rpc_), cluster_(rpc_), agents_(rpc_) {}

  absl::Status Listen(const GrpcServerOptions& options) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    ASSIGN_OR_RETURN(
        listener_, Listener::Open(options.listen, options.tls, {options.descriptor_limit, kDescriptorsKept}, builder));
    rpc_.listen_port = listener_->port();
    NameUnreadableRequests(builder);
    builder.RegisterService(&jobs_);
    builder.RegisterService(&checkpoints_);
    builder.RegisterService(&workers_);
    builder.RegisterService(&cluster_);
    builder.RegisterService(&agents_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::UnavailableError(absl::StrCat("cannot serve on ", options.listen));
    listener_->Start();
    return absl::OkStatus();
  }

  int port() const override { return rpc_.listen_port; }
  absl::Status CallSelf(absl::Duration limit) const override {
    return listener_->CallSelf(limit, [this](const std::shared_ptr<grpc::Channel>& channel, absl::Time deadline) {
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(deadline));
      if (!rpc_.token.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", rpc_.token));
      v1::ClusterStatus response;
      return FromGrpc(v1::ClusterService::NewStub(channel)->GetStatus(&context, {}, &response));
    });
  }
  void Stop(absl::Duration grace) override {
    listener_->Stop();
    rpc_.loop->sessions().CloseAll(absl::UnavailableError("the coordinator is stopping"));
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  }

 private:
  RpcContext rpc_;
  JobServiceImpl jobs_;
  CheckpointServiceImpl checkpoints_;
  WorkerServiceImpl workers_;
  ClusterServiceImpl cluster_;
  AgentServiceImpl agents_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::Status CheckExposure(const GrpcServerOptions& options) {
  const bool guarded = options.tls.enabled() && !options.token_file.empty();
  if (IsLoopback(options.listen) || options.insecure || guarded) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "listening on ", options.listen,
      " reaches beyond this machine: give TLS files and a token file, or accept the risk with --insecure"));
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options, CoreLoop* loop,
                                                              CoordinatorMetrics* metrics) {
  RETURN_IF_ERROR(CheckExposure(options));
  RpcContext rpc;
  rpc.loop = loop;
  rpc.metrics = metrics;
  rpc.started_at = loop->clock().Now();
  ASSIGN_OR_RETURN(rpc.token, ReadToken(options.token_file));
  auto server = std::make_unique<GrpcServerImpl>(std::move(rpc));
  RETURN_IF_ERROR(server->Listen(options));
  return server;
}

}  // namespace athanor

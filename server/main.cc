// athanord: build the objects in order, wait for a signal, stop in reverse.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/descriptors.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "common/service/daemon_flags.h"
#include "common/service/disk_space.h"
#include "common/service/metrics_endpoint.h"
#include "server/rpc/grpc_server.h"
#include "server/server_config.h"
#include "server/storage/rocksdb_store.h"

namespace athanor {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenStore(const ServerConfig& config) {
  if (config.in_memory) return MakeMemoryStore();
  return OpenRocksDbStore(config.data_dir);
}

constexpr int64_t kLeastDescriptors = 128;
constexpr absl::Duration kSelfCallLimit = absl::Seconds(2);

absl::Status Serve(const ServerConfig& config) {
  RETURN_IF_ERROR(SetUpLogging(config.logging));
  ASSIGN_OR_RETURN(const int64_t descriptors, RaiseDescriptorLimit(kLeastDescriptors));
  RETURN_IF_ERROR(CheckExposure(config.grpc));
  ASSIGN_OR_RETURN(std::unique_ptr<MetadataStore> store, OpenStore(config));
  ASSIGN_OR_RETURN(core::ClusterState recovered, store->Load());
  const std::string root = std::filesystem::absolute(config.checkpoint_root).lexically_normal().string();
  CoordinatorMetrics metrics;
  CoreLoopOptions options;
  options.core.lease = config.lease;
  options.checkpoint_root = options.core.checkpoint_root = root;
  const size_t jobs = recovered.jobs.size();
  const uint64_t epoch = store->epoch();
  auto loop = std::make_unique<CoreLoop>(options, std::move(store), std::move(recovered), &metrics);
  std::atomic<const GrpcServer*> serving{nullptr};
  auto healthy = [&serving] {
    const GrpcServer* server = serving;
    return server == nullptr ? absl::UnavailableError("starting") : server->CallSelf(kSelfCallLimit);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<MetricsEndpoint> endpoint,
                   MetricsEndpoint::Start(config.metrics_listen, metrics.registry(), healthy,
                                          [&loop] { return loop->StoreStatus(); }));
  WatchDiskSpace(metrics.registry(), {{"data_dir", config.data_dir}, {"checkpoint_root", root}});
  loop->Start();
  GrpcServerOptions grpc = config.grpc;
  grpc.descriptor_limit = descriptors;
  ASSIGN_OR_RETURN(std::unique_ptr<GrpcServer> server, GrpcServer::Start(grpc, loop.get(), &metrics));
  serving = server.get();
  RETURN_IF_ERROR(WritePortsFile(config.ports_file, {{"grpc", server->port()}, {"metrics", endpoint->port()}}));
  Log(spdlog::level::info, "Serving",
      {{"version", Version()},
       {"port", absl::StrCat(server->port())},
       {"descriptors", absl::StrCat(descriptors)},
       {"metrics_port", absl::StrCat(endpoint->port())},
       {"epoch", absl::StrCat(epoch)},
       {"jobs", absl::StrCat(jobs)}});
  const sigset_t signals = StopSignals();
  int number = 0;
  sigwait(&signals, &number);
  Log(spdlog::level::info, "Stopping", {{"signal", absl::StrCat(number)}});
  server->Stop(absl::Milliseconds(300));
  loop->Stop();
  loop.reset();  // closes the store
  // The endpoint's own stop takes seconds and has nothing to save.
  std::fflush(nullptr);
  _exit(0);
}

}  // namespace
}  // namespace athanor

ATHANOR_OPEN_STANDARD_DESCRIPTORS();

int main(int argc, char** argv) {
  const athanor::ServerConfig config = athanor::ParseServerConfig(argc, argv);
  const sigset_t signals = athanor::StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: only main takes them
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a write over the file size limit then fails with an error that we can name
  const absl::Status status = athanor::Serve(config);
  std::cerr << "athanord: " << status.message() << "\n";
  std::fflush(nullptr);
  _exit(1);
}

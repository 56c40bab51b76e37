// athanord: build the objects in order, wait for a signal, stop in reverse.
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/descriptors.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "athanor/base/version.h"
#include "common/service/daemon_flags.h"
#include "common/service/disk_space.h"
#include "common/service/metrics_endpoint.h"
#include "common/service/stop_limit.h"
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

void TellAside(const std::vector<RecordAside>& aside, CoordinatorMetrics& metrics) {
  metrics.SetRecordsAside(aside.size());
  for (const RecordAside& one : aside) {
    Log(one.fresh ? spdlog::level::critical : spdlog::level::warn, "RecordPutAside", {{"key", one.key}},
        absl::StrCat(one.problem, one.fresh ? ". The service goes on without it; see docs/metadata-format.md" : ""));
  }
}

// RocksDB ends the process by a failed assertion when a disk fills up while it opens or closes.
class StoreAborts {
 public:
  StoreAborts() { previous_ = signal(SIGABRT, OnAbort); }
  ~StoreAborts() { signal(SIGABRT, previous_); }
  StoreAborts(const StoreAborts&) = delete;
  StoreAborts& operator=(const StoreAborts&) = delete;

 private:
  static void OnAbort(int) {
    static constexpr char kText[] = "athanord: the store failed while it was opened or closed; is its disk full?\n";
    if (write(STDERR_FILENO, kText, sizeof kText - 1) < 0) _exit(kExitStopHung);
    _exit(kExitStopHung);
  }
  sighandler_t previous_;
};

// Never destroyed: a process that ends needs no order among its parts, and some take seconds to stop.
struct Parts {
  CoordinatorMetrics metrics;
  std::unique_ptr<CoreLoop> loop;
  std::unique_ptr<MetricsEndpoint> endpoint;
  std::unique_ptr<GrpcServer> server;
  std::atomic<const GrpcServer*> serving{nullptr};  // of the self-call that health is
};

CoreLoopOptions LoopOptions(const ServerConfig& config) {
  CoreLoopOptions options;
  options.core.lease = config.lease;
  options.core.max_finished_jobs = config.keep_jobs;
  options.core.max_finished_bytes = config.keep_jobs_bytes;
  options.core.finished_job_age = config.keep_jobs_for;
  options.core.lost_worker_age = config.keep_lost_workers_for;
  options.checkpoint_root = options.core.checkpoint_root =
      std::filesystem::absolute(config.checkpoint_root).lexically_normal().string();
  return options;
}

absl::Status Start(const ServerConfig& config, Parts& parts) {
  RETURN_IF_ERROR(SetUpLogging(config.logging));
  ASSIGN_OR_RETURN(const int64_t descriptors, RaiseDescriptorLimit(kLeastDescriptors));
  RETURN_IF_ERROR(CheckExposure(config.grpc));
  const CoreLoopOptions options = LoopOptions(config);
  if (!IsUtf8(options.checkpoint_root))
    return absl::InvalidArgumentError("--checkpoint-root: not UTF-8, so that agents cannot be told of it");
  const StoreAborts while_it_opens;
  ASSIGN_OR_RETURN(std::unique_ptr<MetadataStore> store, OpenStore(config));
  ASSIGN_OR_RETURN(core::ClusterState recovered, store->Load());
  const std::vector<RecordAside> aside = store->aside();
  TellAside(aside, parts.metrics);
  const size_t jobs = recovered.jobs.size();
  const uint64_t epoch = store->epoch();
  parts.loop = std::make_unique<CoreLoop>(options, std::move(store), std::move(recovered), &parts.metrics);
  const auto healthy = [&serving = parts.serving] {
    const GrpcServer* server = serving;
    return server == nullptr ? absl::UnavailableError("starting") : server->CallSelf(kSelfCallLimit);
  };
  ASSIGN_OR_RETURN(parts.endpoint, MetricsEndpoint::Start(config.metrics_listen, parts.metrics.registry(), healthy,
                                                          [loop = parts.loop.get()] { return loop->StoreStatus(); }));
  WatchDiskSpace(parts.metrics.registry(),
                 {{"data_dir", config.data_dir}, {"checkpoint_root", options.checkpoint_root}});
  for (const RecordAside& one : aside) {
    if (one.fresh) parts.loop->Post(core::RecordPutAside{one.job, one.problem});
  }
  parts.loop->Start();
  GrpcServerOptions grpc = config.grpc;
  grpc.descriptor_limit = descriptors;
  ASSIGN_OR_RETURN(parts.server, GrpcServer::Start(grpc, parts.loop.get(), &parts.metrics));
  parts.serving = parts.server.get();
  RETURN_IF_ERROR(
      WritePortsFile(config.ports_file, {{"grpc", parts.server->port()}, {"metrics", parts.endpoint->port()}}));
  Log(spdlog::level::info, "Serving",
      {{"version", Version()},
       {"port", absl::StrCat(parts.server->port())},
       {"descriptors", absl::StrCat(descriptors)},
       {"metrics_port", absl::StrCat(parts.endpoint->port())},
       {"epoch", absl::StrCat(epoch)},
       {"jobs", absl::StrCat(jobs)}});
  return absl::OkStatus();
}

[[noreturn]] void Stop(Parts& parts) {
  constexpr absl::Duration kStopLimit = absl::Seconds(15);
  LimitStop("athanord", kStopLimit);
  parts.loop->Drain();
  parts.server->Stop(absl::Milliseconds(300));
  parts.loop->Stop();
  const absl::Status store = parts.loop->StoreStatus();
  if (!store.ok()) {
    Log(spdlog::level::err, "StoppedUnwritten", {},
        absl::StrCat(store.message(), ". What could not be written was acknowledged to nobody"));
    std::fflush(nullptr);
    _exit(kExitStopHung);
  }
  const StoreAborts while_it_closes;
  parts.loop.reset();  // closes the store
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
  umask(077);                // what the store writes is for its owner only
  auto& parts = *new athanor::Parts;
  if (const absl::Status status = athanor::Start(config, parts); !status.ok()) {
    std::cerr << "athanord: " << status.message() << "\n";
    std::fflush(nullptr);
    _exit(1);
  }
  int number = 0;
  sigwait(&signals, &number);
  athanor::Log(spdlog::level::info, "Stopping", {{"signal", absl::StrCat(number)}});
  athanor::Stop(parts);
}

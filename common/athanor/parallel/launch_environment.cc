#include "athanor/parallel/launch_environment.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr int kMaxRanks = 1 << 20;

absl::Status ReadNumber(const char* name, int min, int max, int* value) {
  const char* text = std::getenv(name);
  if (text == nullptr) return absl::OkStatus();
  if (absl::SimpleAtoi(text, value) && *value >= min && *value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": found \"", text, "\"; allowed: ", min, " to ", max));
}

absl::Status ReadAddress(const std::string& method, LaunchEnvironment* launch) {
  const std::string address = method.substr(6);  // after "tcp://"
  const size_t colon = address.rfind(':');
  const bool good = colon != std::string::npos && colon > 0 &&
                    absl::SimpleAtoi(address.substr(colon + 1), &launch->store_port) && launch->store_port > 0 &&
                    launch->store_port < 65536;
  if (!good)
    return absl::InvalidArgumentError(
        absl::StrCat("comm.init_method: found \"", method, "\"; allowed: env:// or tcp://host:port"));
  launch->store_host = address.substr(0, colon);
  return absl::OkStatus();
}

absl::Status ReadMaster(LaunchEnvironment* launch) {
  const char* host = std::getenv("MASTER_ADDR");
  if (host == nullptr || *host == '\0' || std::getenv("MASTER_PORT") == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("WORLD_SIZE is ", launch->world_size,
                     ", but MASTER_ADDR or MASTER_PORT is not set: the ranks cannot find each other"));
  }
  launch->store_host = host;
  return ReadNumber("MASTER_PORT", 1, 65535, &launch->store_port);
}

// This machine's own address on the way to `host`; nothing is sent.
absl::StatusOr<std::string> AddressTowards(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0)
    return absl::UnavailableError(absl::StrCat("the store's host '", host, "': ", gai_strerror(error)));
  absl::Cleanup free_addresses = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  absl::Cleanup close_socket = [fd] { close(fd); };
  sockaddr_storage own{};
  socklen_t length = sizeof(own);
  char text[NI_MAXHOST];
  if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) {
    return absl::UnavailableError(absl::StrCat("the store's host '", host, "' cannot be reached"));
  }
  return std::string(text);
}

}  // namespace

absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment(const std::optional<std::string>& init_method) {
  LaunchEnvironment launch;
  RETURN_IF_ERROR(ReadNumber("WORLD_SIZE", 1, kMaxRanks, &launch.world_size));
  RETURN_IF_ERROR(ReadNumber("RANK", 0, launch.world_size - 1, &launch.rank));
  RETURN_IF_ERROR(ReadNumber("LOCAL_RANK", 0, launch.world_size - 1, &launch.local_rank));
  RETURN_IF_ERROR(ReadNumber("TORCHELASTIC_RESTART_COUNT", 0, 1 << 30, &launch.restarts));
  if (launch.world_size == 1) return launch;
  if (init_method.has_value() && absl::StartsWith(*init_method, "tcp://")) {
    RETURN_IF_ERROR(ReadAddress(*init_method, &launch));
    return launch;
  }
  if (init_method.has_value() && *init_method != "env://") {
    return absl::InvalidArgumentError(
        absl::StrCat("comm.init_method: found \"", *init_method, "\"; allowed: env:// or tcp://host:port"));
  }
  RETURN_IF_ERROR(ReadMaster(&launch));
  const char* hosted = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  launch.store_is_hosted = hosted != nullptr && absl::string_view(hosted) == "True";
  return launch;
}

absl::Status CheckLaunchedAlone() {
  for (const char* name : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* text = std::getenv(name);
    int ranks = 1;
    if (text == nullptr || !absl::SimpleAtoi(text, &ranks) || ranks <= 1) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        name, " is ", ranks, ": a launcher has started ", ranks,
        " ranks, but this program joins none of them, and each would train alone. Join them (JoinLaunchedRanks() in "
        "athanor/parallel/launch_environment.h), start one process, or set `alone` in the runner's options"));
  }
  return absl::OkStatus();
}

Membership LaunchedRanks::members() const {
  return Membership::Create(topology, group.get()).value_or(Membership());  // both are of one launch
}

absl::StatusOr<LaunchedRanks> JoinLaunchedRanks(const LaunchEnvironment& launch, const CommConfig& comm,
                                                const torch::Device& device) {
  LaunchedRanks ranks;
  ASSIGN_OR_RETURN(ranks.topology, ParallelTopology::Create(launch.world_size, launch.rank, launch.local_rank));
  if (launch.world_size == 1) return ranks;
  ProcessGroupOptions options;
  options.rank = launch.rank;
  options.world_size = launch.world_size;
  options.store_host = launch.store_host;
  options.store_port = launch.store_port;
  // A launcher's store lives through its restarts: names of an earlier round must never be met again.
  options.prefix = absl::StrCat("athanor/", launch.restarts);
  ASSIGN_OR_RETURN(options.bind_host, AddressTowards(launch.store_host, launch.store_port));
  options.device = device;
  options.backend = comm.backend;
  options.timeout = absl::Seconds(comm.init_timeout_seconds);
  options.shared_memory = comm.shared_memory;
  options.check = comm.check;
  if (launch.rank == 0 && !launch.store_is_hosted) {
    ASSIGN_OR_RETURN(ranks.store, HostStore::Create({.host = launch.store_host,
                                                     .port = launch.store_port,
                                                     .timeout = absl::Seconds(comm.init_timeout_seconds)}));
    options.hosted_store = ranks.store.get();
  }
  ASSIGN_OR_RETURN(ranks.group, ProcessGroup::Create(options));
  return ranks;
}

}  // namespace athanor

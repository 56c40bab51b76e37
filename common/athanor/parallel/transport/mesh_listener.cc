#include "athanor/parallel/transport/mesh_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr uint32_t kMagic = 0x4d485441;  // "ATHM"
constexpr int kSocketBuffer = 4 << 20;
constexpr absl::Duration kHelloTimeout =
    absl::Seconds(5);  // a stranger who connects and says nothing holds us no longer

struct Hello {
  uint32_t magic;
  uint32_t rank;
  uint64_t nonce;  // of the rank that is called
};

absl::Status SystemError(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(errno)));
}

absl::StatusOr<addrinfo*> Resolve(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(absl::StrCat("cannot resolve '", host, "': ", gai_strerror(error)));
  }
  return found;
}

int MillisecondsUntil(absl::Time deadline) {
  return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(deadline - absl::Now()), 0, 1000));
}

// Until the socket is ready for `events` or the deadline has passed.
absl::Status Ready(int fd, short events, absl::Time deadline) {
  while (true) {
    pollfd wanted{fd, events, 0};
    if (poll(&wanted, 1, MillisecondsUntil(deadline) + 1) > 0) return absl::OkStatus();
    if (absl::Now() >= deadline) return absl::DeadlineExceededError("no answer in time");
  }
}

void Tune(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof(kSocketBuffer));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kSocketBuffer, sizeof(kSocketBuffer));
}

absl::StatusOr<int> ConnectTo(const std::string& address, uint32_t rank, absl::Time deadline) {
  const std::vector<std::string> parts = absl::StrSplit(address, ' ');
  Hello hello{kMagic, rank, 0};
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[2], &hello.nonce)) {
    return absl::UnavailableError(absl::StrCat("'", address, "' is not the address of a rank"));
  }
  ASSIGN_OR_RETURN(addrinfo * found, Resolve(parts[0], parts[1]));
  absl::Cleanup free_addresses = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return SystemError("socket");
  absl::Cleanup close_socket = [fd] { close(fd); };
  Tune(fd);
  if (connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return SystemError(absl::StrCat("connecting to ", parts[0], ":", parts[1]));
    RETURN_IF_ERROR(Ready(fd, POLLOUT, deadline));
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    errno = error;
    if (error != 0) return SystemError(absl::StrCat("connecting to ", parts[0], ":", parts[1]));
  }
  RETURN_IF_ERROR(SendAll(fd, &hello, sizeof(hello), deadline));
  std::move(close_socket).Cancel();
  return fd;
}

}  // namespace

absl::Status SendAll(int fd, const void* data, size_t bytes, absl::Time deadline) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t moved = send(fd, from, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (moved > 0) {
      from += moved;
      bytes -= static_cast<size_t>(moved);
      continue;
    }
    if (moved < 0 && errno != EAGAIN && errno != EINTR) return SystemError("sending");
    RETURN_IF_ERROR(Ready(fd, POLLOUT, deadline));
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(int fd, void* data, size_t bytes, absl::Time deadline) {
  char* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t moved = recv(fd, to, bytes, MSG_DONTWAIT);
    if (moved > 0) {
      to += moved;
      bytes -= static_cast<size_t>(moved);
      continue;
    }
    if (moved == 0) return absl::UnavailableError("the connection was closed by the other side");
    if (errno != EAGAIN && errno != EINTR) return SystemError("receiving");
    RETURN_IF_ERROR(Ready(fd, POLLIN, deadline));
  }
  return absl::OkStatus();
}

MeshListener::MeshListener(int fd, uint64_t nonce, std::string address)
    : fd_(fd), nonce_(nonce), address_(std::move(address)) {}

MeshListener::~MeshListener() {
  close(fd_);
}

absl::StatusOr<std::unique_ptr<MeshListener>> MeshListener::Open(const std::string& host) {
  ASSIGN_OR_RETURN(addrinfo * found, Resolve(host, "0"));
  absl::Cleanup free_addresses = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return SystemError("socket");
  absl::Cleanup close_socket = [fd] { close(fd); };
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return SystemError(absl::StrCat("listening on '", host, "'"));
  }
  const int port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                     : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  std::random_device random;
  const uint64_t nonce = (uint64_t{random()} << 32) | random();
  std::move(close_socket).Cancel();
  return std::unique_ptr<MeshListener>(new MeshListener(fd, nonce, absl::StrCat(host, " ", port, " ", nonce)));
}

absl::StatusOr<std::vector<int>> MeshListener::Connect(int rank, const std::vector<std::string>& addresses,
                                                       absl::Time deadline) {
  std::vector<int> sockets(addresses.size(), -1);
  absl::Cleanup close_all = [&sockets] {
    for (const int fd : sockets) {
      if (fd >= 0) close(fd);
    }
  };
  for (int peer = 0; peer < rank; ++peer) {
    absl::StatusOr<int> fd = ConnectTo(addresses[peer], static_cast<uint32_t>(rank), deadline);
    if (!fd.ok()) return Annotate(fd.status(), absl::StrCat("rank ", peer));
    sockets[peer] = *fd;
  }
  RETURN_IF_ERROR(AcceptLater(rank, sockets, deadline));
  std::move(close_all).Cancel();
  return sockets;
}

absl::Status MeshListener::AcceptLater(int rank, std::vector<int>& sockets, absl::Time deadline) {
  const auto missing = [&] {
    std::vector<size_t> ranks;
    for (size_t peer = static_cast<size_t>(rank) + 1; peer < sockets.size(); ++peer) {
      if (sockets[peer] < 0) ranks.push_back(peer);
    }
    return ranks;
  };
  while (!missing().empty()) {
    if (!Ready(fd_, POLLIN, deadline).ok()) {
      return absl::DeadlineExceededError(absl::StrCat("not connected in time: rank ", absl::StrJoin(missing(), ", ")));
    }
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) continue;
      return SystemError("accepting");
    }
    Hello hello{};
    const absl::Status heard = ReceiveAll(fd, &hello, sizeof(hello), std::min(deadline, absl::Now() + kHelloTimeout));
    const bool known = heard.ok() && hello.magic == kMagic && hello.nonce == nonce_ &&
                       hello.rank > static_cast<uint32_t>(rank) && hello.rank < sockets.size() &&
                       sockets[hello.rank] < 0;
    if (!known) {
      close(fd);
      continue;
    }
    Tune(fd);
    sockets[hello.rank] = fd;
  }
  return absl::OkStatus();
}

}  // namespace athanor

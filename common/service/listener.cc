#include "common/service/listener.h"

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/security/server_credentials.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"
#include "common/service/logging_setup.h"

namespace athanor {
namespace {

constexpr int kBacklog = 1024;
constexpr int kPauseMs = 50;  // after an accept that failed for want of something
constexpr unsigned kUserTimeoutMs = 20000;
constexpr absl::Duration kLogPace = absl::Seconds(10);

// An owned descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() { Close(); }
  void Close() {
    if (number_ >= 0) close(std::exchange(number_, -1));
  }
  int get() const { return number_; }
  int Release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t size = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
  std::string bytes() const { return {reinterpret_cast<const char*>(&storage), size}; }
  uint16_t* port() {
    return family() == AF_INET6 ? &reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                : &reinterpret_cast<sockaddr_in*>(&storage)->sin_port;
  }
  bool IsAny() const {
    if (family() == AF_INET) return reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr.s_addr == INADDR_ANY;
    return family() == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr);
  }
};

SocketAddress LocalAddress(int socket) {
  SocketAddress address;
  getsockname(socket, address.get(), &address.size);
  return address;
}

absl::StatusOr<SocketAddress> UnixAddress(const std::string& path) {
  SocketAddress address;
  auto* name = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (path.empty() || path.size() >= sizeof name->sun_path)
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' has ", path.size(),
                                                   " bytes; allowed: 1 to ", sizeof name->sun_path - 1));
  name->sun_family = AF_UNIX;
  std::memcpy(name->sun_path, path.data(), path.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

// Every address of "host:port"; any address of this machine as one for both families.
absl::StatusOr<std::vector<SocketAddress>> Resolve(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat("address '", address, "': expected host:port"));
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found); error != 0)
    return absl::InvalidArgumentError(absl::StrCat("address '", address, "': ", gai_strerror(error)));
  std::vector<SocketAddress> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    SocketAddress copy;
    std::memcpy(&copy.storage, one->ai_addr, one->ai_addrlen);
    copy.size = one->ai_addrlen;
    addresses.push_back(copy);
  }
  freeaddrinfo(found);
  if (addresses[0].IsAny()) {
    SocketAddress both;
    auto* any = reinterpret_cast<sockaddr_in6*>(&both.storage);
    any->sin6_family = AF_INET6;
    any->sin6_port = *addresses[0].port();
    both.size = sizeof(sockaddr_in6);
    addresses.resize(1);
    addresses.insert(addresses.begin(), both);
  }
  return addresses;
}

// A listening socket, or the errno of what failed.
std::pair<Descriptor, int> ListenOn(const SocketAddress& address) {
  Descriptor socket_fd(socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket_fd.get() < 0) return {Descriptor(), errno};
  if (address.family() != AF_UNIX) {
    const int on = 1, off = 0;
    const unsigned timeout = kUserTimeoutMs;  // accepted sockets inherit these
    setsockopt(socket_fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(socket_fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(socket_fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    if (address.family() == AF_INET6)
      setsockopt(socket_fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, address.IsAny() ? &off : &on, sizeof on);
  }
  if (bind(socket_fd.get(), address.get(), address.size) != 0 || listen(socket_fd.get(), kBacklog) != 0)
    return {Descriptor(), errno};
  return {std::move(socket_fd), 0};
}

using Acceptor = std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>;
constexpr auto kFromFd = grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD;

class ListenerImpl : public Listener {
 public:
  explicit ListenerImpl(const ListenerOptions& options) : ceiling_(ConnectionCeiling(options)) {}
  ~ListenerImpl() override { Stop(); }

  absl::Status Open(const std::string& address, const TlsFiles& tls, grpc::ServerBuilder& builder) {
    ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ServerCredentials> credentials, MakeServerCredentials(tls));
    RETURN_IF_ERROR(Bind(address));
    callers_ = builder.experimental().AddExternalConnectionAcceptor(kFromFd, credentials);
    if (tls.enabled())
      self_ = builder.experimental().AddExternalConnectionAcceptor(kFromFd, grpc::InsecureServerCredentials());
    spare_ = Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
    stop_ = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (stop_.get() < 0) return absl::ErrnoToStatus(errno, "making an event descriptor");
    return absl::OkStatus();
  }

  void Start() override {
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "athanor-accept");
      Run();
    });
  }

  void Stop() override {
    const uint64_t one = 1;
    if (thread_.joinable()) {
      while (write(stop_.get(), &one, sizeof one) < 0 && errno == EINTR) {
      }
      thread_.join();
    }
    sockets_.clear();
  }

  int port() const override { return port_; }
  absl::Status CallSelf(absl::Duration limit, const SelfCall& call) override;

 private:
  absl::Status Bind(const std::string& address);
  void Run();
  void AcceptAll(int socket);
  void TakeConnection(int socket, Descriptor connection, const SocketAddress& peer);
  void DropOne(int socket);
  void LogRefusal(const std::string& why);
  bool IsSelf(const SocketAddress& peer);
  SocketAddress SelfAddress() const;
  absl::Status Connected(Descriptor socket_fd, const SocketAddress& to, absl::Time deadline, const SelfCall& call);

  const int64_t ceiling_;
  std::vector<Descriptor> sockets_;
  std::vector<SocketAddress> bound_;
  int port_ = 0;
  Acceptor callers_, self_;
  Descriptor spare_, stop_;
  std::thread thread_;
  bool starved_ = false;  // of the accept thread
  int64_t refused_ = 0;
  absl::Time log_at_ = absl::InfinitePast();
  std::mutex mutex_;
  std::set<std::string> own_;  // guarded by mutex_: addresses from which this process calls itself
};

absl::Status ListenerImpl::Bind(const std::string& address) {
  std::vector<SocketAddress> addresses;
  const bool local = absl::StartsWith(address, "unix:");
  if (local) {
    ASSIGN_OR_RETURN(addresses.emplace_back(), UnixAddress(address.substr(5)));
  } else {
    ASSIGN_OR_RETURN(addresses, Resolve(address));
  }
  int error = EADDRNOTAVAIL;
  for (SocketAddress& one : addresses) {
    if (!bound_.empty() && bound_[0].IsAny()) break;  // both families are served
    if (!local && port_ != 0) *one.port() = htons(static_cast<uint16_t>(port_));
    auto [socket_fd, failure] = ListenOn(one);
    if (socket_fd.get() < 0) {
      // A machine without IPv6 still serves "localhost".
      if (failure != EADDRNOTAVAIL && failure != EAFNOSUPPORT)
        return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", strerror(failure)));
      error = failure;
      continue;
    }
    bound_.push_back(LocalAddress(socket_fd.get()));
    if (!local) port_ = ntohs(*bound_.back().port());
    sockets_.push_back(std::move(socket_fd));
  }
  if (sockets_.empty())
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", strerror(error)));
  return absl::OkStatus();
}

void ListenerImpl::Run() {
  std::vector<pollfd> waits{{stop_.get(), POLLIN, 0}};
  for (const Descriptor& one : sockets_) waits.push_back({one.get(), POLLIN, 0});
  while (true) {
    // While something is short, ready sockets would keep the loop spinning.
    const int count = poll(waits.data(), starved_ ? 1 : waits.size(), starved_ ? kPauseMs : -1);
    if (waits[0].revents != 0) return;
    if (count < 0 && errno != EINTR) starved_ = true;
    if (starved_) {
      starved_ = false;
      for (pollfd& wait : waits) wait.revents = POLLIN;
      waits[0].revents = 0;
    }
    for (size_t i = 1; i < waits.size(); ++i) {
      if (waits[i].revents != 0) AcceptAll(waits[i].fd);
      waits[i].revents = 0;
    }
  }
}

void ListenerImpl::AcceptAll(int socket) {
  while (true) {
    SocketAddress peer;
    Descriptor connection(accept4(socket, peer.get(), &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (connection.get() >= 0) {
      TakeConnection(socket, std::move(connection), peer);
      continue;
    }
    switch (errno) {
      case EAGAIN:
        return;
      case EMFILE:
      case ENFILE:
        DropOne(socket);
        starved_ = true;
        return;
      case ENOMEM:
      case ENOBUFS:
        LogRefusal(strerror(errno));
        starved_ = true;
        return;
      default:  // of one connection: it is gone
        continue;
    }
  }
}

void ListenerImpl::TakeConnection(int socket, Descriptor connection, const SocketAddress& peer) {
  if (connection.get() >= ceiling_) return LogRefusal("the rest of the descriptors is kept for files and children");
  Acceptor& acceptor = self_ != nullptr && IsSelf(peer) ? self_ : callers_;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters taken;
  taken.listener_fd = socket;
  taken.fd = connection.Release();
  acceptor->HandleNewConnection(&taken);
}

// Out of descriptors: the caller is told at once, by the help of the spare one.
void ListenerImpl::DropOne(int socket) {
  LogRefusal("out of file descriptors");
  spare_.Close();
  Descriptor(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC)).Close();
  spare_ = Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

void ListenerImpl::LogRefusal(const std::string& why) {
  ++refused_;
  if (absl::Now() < log_at_) return;
  log_at_ = absl::Now() + kLogPace;
  Log(spdlog::level::warn, "ConnectionsRefused",
      {{"so_far", absl::StrCat(refused_)}, {"ceiling", absl::StrCat(ceiling_)}}, why);
}

bool ListenerImpl::IsSelf(const SocketAddress& peer) {
  SocketAddress plain = peer;
  // A socket of both families shows an IPv4 caller as ::ffff:a.b.c.d.
  const auto* wide = reinterpret_cast<const sockaddr_in6*>(&peer.storage);
  if (peer.family() == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&wide->sin6_addr)) {
    plain = SocketAddress{};
    auto* narrow = reinterpret_cast<sockaddr_in*>(&plain.storage);
    narrow->sin_family = AF_INET;
    narrow->sin_port = wide->sin6_port;
    std::memcpy(&narrow->sin_addr, &wide->sin6_addr.s6_addr[12], sizeof narrow->sin_addr);
    plain.size = sizeof(sockaddr_in);
  }
  std::lock_guard lock(mutex_);
  return own_.contains(plain.bytes());
}

SocketAddress ListenerImpl::SelfAddress() const {
  if (!bound_[0].IsAny()) return bound_[0];
  SocketAddress address;
  auto* loopback = reinterpret_cast<sockaddr_in*>(&address.storage);
  loopback->sin_family = AF_INET;
  loopback->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  loopback->sin_port = htons(static_cast<uint16_t>(port_));
  address.size = sizeof(sockaddr_in);
  return address;
}

absl::Status ListenerImpl::CallSelf(absl::Duration limit, const SelfCall& call) {
  const absl::Time deadline = absl::Now() + limit;
  const SocketAddress to = SelfAddress();
  Descriptor socket_fd(socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket_fd.get() < 0) return absl::UnavailableError(absl::StrCat("calling ourselves: ", strerror(errno)));
  if (to.family() == AF_UNIX) return Connected(std::move(socket_fd), to, deadline, call);
  SocketAddress from = to;  // from the address called: nobody else can be taken for us while this socket is open
  *from.port() = 0;
  if (bind(socket_fd.get(), from.get(), from.size) != 0)
    return absl::UnavailableError(absl::StrCat("calling ourselves: ", strerror(errno)));
  const std::string own = LocalAddress(socket_fd.get()).bytes();
  {
    std::lock_guard lock(mutex_);
    own_.insert(own);
  }
  const absl::Status status = Connected(std::move(socket_fd), to, deadline, call);
  std::lock_guard lock(mutex_);
  own_.erase(own);
  return status;
}

absl::Status ListenerImpl::Connected(Descriptor socket_fd, const SocketAddress& to, absl::Time deadline,
                                     const SelfCall& call) {
  int error = connect(socket_fd.get(), to.get(), to.size) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd wait = {socket_fd.get(), POLLOUT, 0};
    socklen_t size = sizeof error;
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
    error = ETIMEDOUT;
    if (poll(&wait, 1, static_cast<int>(left)) == 1) getsockopt(socket_fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) return absl::UnavailableError(absl::StrCat("calling ourselves: ", strerror(error)));
  return call(grpc::CreateInsecureChannelFromFd("self", socket_fd.Release()), deadline);
}

}  // namespace

int64_t ConnectionCeiling(const ListenerOptions& options) {
  return options.descriptor_limit - std::clamp<int64_t>(options.reserve, 0, options.descriptor_limit / 2);
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(const std::string& address, const TlsFiles& tls,
                                                         const ListenerOptions& options, grpc::ServerBuilder& builder) {
  auto listener = std::make_unique<ListenerImpl>(options);
  RETURN_IF_ERROR(listener->Open(address, tls, builder));
  return listener;
}

}  // namespace athanor

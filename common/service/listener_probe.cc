#include "common/service/listener_probe.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

constexpr absl::Duration kProbeLimit = absl::Seconds(1);

class Socket {
 public:
  Socket(int family, absl::Duration limit) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval wait = absl::ToTimeval(limit);
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);  // holds for connect() too
  }
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

ListenerKind Handshake(int fd) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (context == nullptr) return ListenerKind::kUnknown;
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);  // only the protocol is asked for, nothing is sent
  const std::unique_ptr<SSL, decltype(&SSL_free)> session(SSL_new(context.get()), SSL_free);
  if (session == nullptr || SSL_set_fd(session.get(), fd) != 1) return ListenerKind::kUnknown;
  ERR_clear_error();
  const int result = SSL_connect(session.get());
  if (result == 1) return ListenerKind::kTls;
  if (SSL_get_error(session.get(), result) != SSL_ERROR_SSL) return ListenerKind::kUnknown;
  switch (ERR_GET_REASON(ERR_peek_error())) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_UNSUPPORTED_PROTOCOL:
      return ListenerKind::kPlain;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
      return ListenerKind::kUnknown;
    default:
      return ListenerKind::kTls;  // an alert: it speaks TLS and does not want us
  }
}

ListenerKind Probe(int family, const sockaddr* address, socklen_t length, absl::Duration limit) {
  const Socket socket(family, limit);
  if (connect(socket.fd(), address, length) == 0) return Handshake(socket.fd());
  return errno == ECONNREFUSED || errno == ENOENT ? ListenerKind::kNone : ListenerKind::kUnknown;
}

}  // namespace

ListenerKind ProbeListener(const std::string& address, absl::Duration limit) {
  if (absl::StartsWith(address, "unix:")) {
    sockaddr_un local = {};
    local.sun_family = AF_UNIX;
    strncpy(local.sun_path, address.c_str() + 5, sizeof local.sun_path - 1);
    return Probe(AF_UNIX, reinterpret_cast<const sockaddr*>(&local), sizeof local, limit);
  }
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found) != 0) return ListenerKind::kUnknown;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found, freeaddrinfo);
  ListenerKind kind = ListenerKind::kNone;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    kind = Probe(one->ai_family, one->ai_addr, one->ai_addrlen, limit);
    if (kind == ListenerKind::kPlain || kind == ListenerKind::kTls) break;
  }
  return kind;
}

std::string TransportMismatch(const std::string& address, bool we_speak_tls, const std::string& us) {
  const ListenerKind kind = ProbeListener(address, kProbeLimit);
  if (kind == ListenerKind::kTls && !we_speak_tls)
    return absl::StrCat("coordinator ", address, " speaks TLS, ", us,
                        " speaks plain text: give --tls-ca, and --tls-certificate and --tls-key where it asks clients "
                        "for them");
  if (kind == ListenerKind::kPlain && we_speak_tls)
    return absl::StrCat("coordinator ", address, " speaks plain text, ", us, " TLS: leave the TLS files out");
  return "";
}

}  // namespace athanor

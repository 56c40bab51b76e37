// Answers GET requests over plain HTTP/1.1, one request a connection (Boost.Beast). One thread ("athanor-http") holds
// all connections, a few more run the handlers, so a caller that is slow costs a descriptor and no thread.
//
// At most `kMostConnections` are held. The next one takes the place of the oldest that has not sent its request, so
// no crowd of silent callers keeps a prompt one waiting. A request must arrive within a second, an answer must be
// taken within five.
//
//   ASSIGN_OR_RETURN(auto server, HttpServer::Start("127.0.0.1:0", {{"/ping", [] { return HttpAnswer{}; }}}));
//   server->port();
//
// Thread-safe. The destructor waits for the handlers that run.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

struct HttpAnswer {
  int code = 200;
  std::string type = "text/plain";
  std::string body;
};

class HttpServer {
 public:
  static constexpr int kMostConnections = 32;
  using Handlers = std::map<std::string, std::function<HttpAnswer()>>;  // path -> answer; several threads call them

  // `address`: "host:port", port 0 = any free one. INVALID_ARGUMENT: a host that does not resolve. UNAVAILABLE: the
  // address is in use.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address, Handlers handlers);
  virtual ~HttpServer() = default;
  virtual int port() const = 0;
};

}  // namespace athanor

#include "common/service/http_server.h"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_static_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr std::chrono::seconds kRequestLimit{1};
constexpr std::chrono::seconds kAnswerLimit{5};
constexpr std::chrono::milliseconds kPause{50};  // after an accept that failed for want of something
constexpr uint32_t kHeaderLimit = 8 * 1024;
constexpr size_t kBuffer = 16 * 1024;
constexpr int kHandlerThreads = 4;

// The callbacks of a connection hold it; `Close()` ends what is under way, and with it the last callback.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Serve = std::function<void(const std::shared_ptr<Connection>&, const std::string& path)>;
  using Gone = std::function<void(const std::shared_ptr<Connection>&)>;

  explicit Connection(Tcp::socket socket) : stream_(std::move(socket)) { parser_.header_limit(kHeaderLimit); }

  void Read(Serve serve, Gone gone) {
    gone_ = std::move(gone);
    stream_.expires_after(kRequestLimit);
    http::async_read_header(stream_, buffer_, parser_,
                            [self = shared_from_this(), serve = std::move(serve)](error_code error, size_t) {
                              self->OnRequest(error, serve);
                            });
  }

  void Write(HttpAnswer answer) {
    const bool head = parser_.get().method() == http::verb::head;
    answer_.result(static_cast<unsigned>(answer.code));
    answer_.version(11);
    answer_.set(http::field::content_type, answer.type);
    answer_.keep_alive(false);
    answer_.content_length(answer.body.size());
    if (!head) answer_.body() = std::move(answer.body);
    stream_.expires_after(kAnswerLimit);
    http::async_write(stream_, answer_, [self = shared_from_this()](error_code, size_t) { self->End(); });
  }

  void Close() { stream_.close(); }
  bool asked() const { return asked_; }

 private:
  void OnRequest(error_code error, const Serve& serve) {
    if (error) return End();
    asked_ = true;
    stream_.expires_never();
    const auto& request = parser_.get();
    if (request.method() != http::verb::get && request.method() != http::verb::head)
      return Write({405, "text/plain", "allowed: GET, HEAD\n"});
    const std::string target(request.target());
    serve(shared_from_this(), target.substr(0, target.find('?')));
  }

  void End() {
    error_code ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
    Close();
    if (const Gone gone = std::exchange(gone_, nullptr)) gone(shared_from_this());
  }

  boost::beast::tcp_stream stream_;
  boost::beast::flat_static_buffer<kBuffer> buffer_;
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> answer_;
  Gone gone_;
  bool asked_ = false;
};

class Server : public HttpServer {
 public:
  explicit Server(Handlers handlers) : handlers_(std::move(handlers)) {}

  ~Server() override {
    pool_.stop();
    context_.stop();
    if (thread_.joinable()) thread_.join();
    pool_.join();
  }

  absl::Status Listen(const std::string& address) {
    const size_t colon = address.rfind(':');
    std::string host = colon == std::string::npos ? "" : address.substr(0, colon);
    const std::string service = address.substr(colon == std::string::npos ? 0 : colon + 1);
    if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    error_code error;
    const auto found =
        Tcp::resolver(context_).resolve(host, service, Tcp::resolver::passive | Tcp::resolver::numeric_service, error);
    if (error) return absl::InvalidArgumentError(absl::StrCat("address '", address, "': ", error.message()));
    for (const auto& one : found) {
      // A machine without IPv6 still serves "localhost", which has an address of each family.
      Bind(one.endpoint(), error);
      const bool absent =
          error == asio::error::address_family_not_supported || error == boost::system::errc::address_not_available;
      if (!error || absent) continue;
      acceptors_.clear();
      break;
    }
    if (acceptors_.empty())
      return absl::UnavailableError(absl::StrCat("cannot serve HTTP on ", address, ": ", error.message()));
    for (Tcp::acceptor& acceptor : acceptors_) Accept(acceptor);
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "athanor-http");
      context_.run();
    });
    return absl::OkStatus();
  }

  int port() const override { return port_; }

 private:
  void Bind(Tcp::endpoint endpoint, error_code& error) {
    if (port_ != 0) endpoint.port(static_cast<uint16_t>(port_));
    Tcp::acceptor acceptor(context_);
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
    if (!error && endpoint.protocol() == Tcp::v6()) acceptor.set_option(asio::ip::v6_only(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) return;
    port_ = acceptor.local_endpoint().port();
    acceptors_.push_back(std::move(acceptor));
  }

  void Accept(Tcp::acceptor& acceptor) {
    acceptor.async_accept([this, &acceptor](error_code error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) {  // out of descriptors, for instance: the oldest caller gives way
        MakeRoom(static_cast<int>(connections_.size()) - 1);
        pause_.expires_after(kPause);
        return pause_.async_wait([this, &acceptor](error_code) { Accept(acceptor); });
      }
      MakeRoom(kMostConnections - 1);
      connections_.push_back(std::make_shared<Connection>(std::move(socket)));
      connections_.back()->Read([this](const auto& connection, const std::string& path) { Serve(connection, path); },
                                [this](const auto& connection) { connections_.remove(connection); });
      Accept(acceptor);
    });
  }

  void MakeRoom(int most) {
    while (static_cast<int>(connections_.size()) > std::max(most, 0)) {
      auto oldest =
          std::find_if(connections_.begin(), connections_.end(), [](const auto& one) { return !one->asked(); });
      if (oldest == connections_.end()) oldest = connections_.begin();
      (*oldest)->Close();
      connections_.erase(oldest);
    }
  }

  void Serve(const std::shared_ptr<Connection>& connection, const std::string& path) {
    const auto handler = handlers_.find(path);
    if (handler == handlers_.end()) return connection->Write({404, "text/plain", "not found\n"});
    asio::post(pool_, [this, connection, &answer = handler->second] {
      asio::post(context_, [connection, ready = answer()]() mutable { connection->Write(std::move(ready)); });
    });
  }

  const Handlers handlers_;
  asio::io_context context_{1};
  asio::thread_pool pool_{kHandlerThreads};
  std::list<Tcp::acceptor> acceptors_;
  asio::steady_timer pause_{context_};
  std::list<std::shared_ptr<Connection>> connections_;  // oldest first; of the thread, as all but `handlers_`
  int port_ = 0;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address, Handlers handlers) {
  auto server = std::make_unique<Server>(std::move(handlers));
  RETURN_IF_ERROR(server->Listen(address));
  return server;
}

}  // namespace athanor

#include "common/service/metrics_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace athanor {
namespace {

class Client {
 public:
  explicit Client(int port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval patience{10, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  void Say(const std::string& text) {
    EXPECT_EQ(static_cast<size_t>(send(socket_, text.data(), text.size(), MSG_NOSIGNAL)), text.size());
  }
  // Until the other side has nothing more to say.
  std::string Hear() {
    std::string heard;
    char buffer[4096];
    for (ssize_t got = 0; (got = recv(socket_, buffer, sizeof buffer, 0)) > 0;)
      heard.append(buffer, static_cast<size_t>(got));
    return heard;
  }

 private:
  const int socket_;
};

std::unique_ptr<MetricsEndpoint> Start() {
  auto endpoint = MetricsEndpoint::Start(
      "127.0.0.1:0", std::make_shared<prometheus::Registry>(), [] { return absl::OkStatus(); },
      [] { return absl::UnavailableError("not yet"); });
  EXPECT_TRUE(endpoint.ok()) << endpoint.status();
  return *std::move(endpoint);
}

TEST(MetricsEndpoint, AnswersWhileSlowConnectionsSayNothing) {
  const auto endpoint = Start();
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 300; ++i) {
    slow.push_back(std::make_unique<Client>(endpoint->port()));
    if (i % 2 == 0) slow.back()->Say("GET /heal");
  }
  for (const char* path : {"/healthz", "/metrics", "/readyz"}) {
    const absl::Time start = absl::Now();
    Client prompt(endpoint->port());
    prompt.Say(std::string("GET ") + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(prompt.Hear(), testing::StartsWith(path == std::string("/readyz") ? "HTTP/1.1 503" : "HTTP/1.1 200"));
    EXPECT_LT(absl::Now() - start, absl::Seconds(1)) << path;
  }
}

TEST(MetricsEndpoint, GivesUpASlowConnection) {
  const auto endpoint = Start();
  Client slow(endpoint->port());
  slow.Say("GET /heal");
  EXPECT_THAT(slow.Hear(), testing::Not(testing::HasSubstr("200 OK"))) << "the connection ends, without an answer";
}

TEST(MetricsEndpoint, RefusesWhatItDoesNotServe) {
  const auto endpoint = Start();
  const auto answer = [&](const std::string& request) {
    Client client(endpoint->port());
    client.Say(request + " HTTP/1.1\r\nHost: a\r\n\r\n");
    return client.Hear();
  };
  EXPECT_THAT(answer("GET /nothing"), testing::StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(answer("POST /healthz"), testing::StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(answer("GET /healthz?verbose=1"), testing::EndsWith("\r\n\r\nok\n"));
  EXPECT_THAT(answer("HEAD /healthz"),
              testing::AllOf(testing::HasSubstr("Content-Length: 3"), testing::EndsWith("\r\n\r\n")));
}

TEST(MetricsEndpoint, SaysWhyItCannotListen) {
  const auto endpoint = Start();
  const auto start = [](const std::string& address) {
    return MetricsEndpoint::Start(
               address, std::make_shared<prometheus::Registry>(), [] { return absl::OkStatus(); },
               [] { return absl::OkStatus(); })
        .status();
  };
  EXPECT_EQ(start(absl::StrCat("127.0.0.1:", endpoint->port())).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(start("no such host:80").code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace athanor

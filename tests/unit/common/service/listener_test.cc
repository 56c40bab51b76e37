// A listener under a crowd: it refuses, it never gives up, and asked whether callers are served it says so.
#include "common/service/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/descriptors.h"
#include "athanor/base/run_program.h"
#include "athanor/v1/job_service.grpc.pb.h"
#include "common/service/grpc_status.h"

namespace athanor {
namespace {

class AnsweringService : public v1::ClusterService::Service {
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::ClusterStatus*) override {
    return grpc::Status::OK;
  }
};

absl::Status Ask(const std::shared_ptr<grpc::Channel>& channel, absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::ClusterStatus status;
  return FromGrpc(v1::ClusterService::NewStub(channel)->GetStatus(&context, {}, &status));
}

struct Served {
  explicit Served(const std::string& address, const TlsFiles& tls = {}, const ListenerOptions& options = {}) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.RegisterService(&service);
    auto opened = Listener::Open(address, tls, options, builder);
    EXPECT_TRUE(opened.ok()) << opened.status();
    listener = *std::move(opened);
    server = builder.BuildAndStart();
    listener->Start();
  }
  ~Served() {
    listener->Stop();
    server->Shutdown(std::chrono::system_clock::now());
  }
  absl::Status CallSelf() const { return listener->CallSelf(absl::Seconds(5), Ask); }
  absl::Status Call(const std::string& address, const ChannelOptions& options = {}) const {
    const auto channel = MakeChannel(address, options);
    return channel.ok() ? Ask(*channel, absl::Now() + absl::Seconds(5)) : channel.status();
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", listener->port()); }

  AnsweringService service;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<grpc::Server> server;
};

int LowestFree() {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(fd);
  return fd;
}

// Connections that never speak.
class Crowd {
 public:
  Crowd(int port, int wanted) {
    for (int i = 0; i < wanted; ++i) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (fd < 0) return;
      sockaddr_in address = {};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      address.sin_port = htons(static_cast<uint16_t>(port));
      sockets_.push_back(fd);
      if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return;
    }
  }
  ~Crowd() { Leave(); }
  void Leave() {
    for (const int fd : sockets_) close(fd);
    sockets_.clear();
  }
  size_t size() const { return sockets_.size(); }
  // Whether the last to come was sent away.
  bool LastIsRefused() const {
    pollfd wait = {sockets_.back(), POLLIN, 0};
    char byte = 0;
    return poll(&wait, 1, 5000) == 1 && recv(sockets_.back(), &byte, 1, MSG_DONTWAIT) <= 0;
  }

 private:
  std::vector<int> sockets_;
};

// The server notices closed connections in its own time.
absl::Status ServedWithin(const Served& served, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  absl::Status status = served.CallSelf();
  while (!status.ok() && absl::Now() < end) status = served.CallSelf();
  return status;
}

TEST(ListenerTest, ServesCallersAndItself) {
  const Served served("127.0.0.1:0");
  EXPECT_TRUE(served.Call(served.address()).ok());
  EXPECT_TRUE(served.CallSelf().ok()) << served.CallSelf();
  const Served any("0.0.0.0:0");
  EXPECT_TRUE(any.Call(any.address()).ok());
  EXPECT_TRUE(any.CallSelf().ok()) << any.CallSelf();
  const Served named("localhost:0");
  EXPECT_TRUE(named.CallSelf().ok()) << named.CallSelf();
}

TEST(ListenerTest, ServesAUnixSocket) {
  const std::string path = absl::StrCat(testing::TempDir(), "/listener-", getpid(), ".sock");
  unlink(path.c_str());
  {
    const Served served("unix:" + path);
    EXPECT_TRUE(served.Call("unix:" + path).ok());
    EXPECT_TRUE(served.CallSelf().ok()) << served.CallSelf();
  }
  unlink(path.c_str());
}

TEST(ListenerTest, TheRestOfTheDescriptorsIsKeptAndTheNextCallersAreServed) {
  const int limit = LowestFree() + 400;
  const Served served("127.0.0.1:0", {}, {.descriptor_limit = limit, .reserve = 100});
  ASSERT_TRUE(served.CallSelf().ok());
  Crowd crowd(served.listener->port(), 400);  // takes as many again on the server's side
  EXPECT_TRUE(crowd.LastIsRefused());
  EXPECT_FALSE(served.CallSelf().ok());
  crowd.Leave();
  EXPECT_TRUE(ServedWithin(served, absl::Seconds(20)).ok());
}

TEST(ListenerTest, OutOfDescriptorsIsNotTheEnd) {
  const Served served("127.0.0.1:0", {}, {.descriptor_limit = 1 << 20, .reserve = 0});
  ASSERT_TRUE(served.CallSelf().ok());
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit low = {static_cast<rlim_t>(LowestFree() + 60), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  {
    const Crowd crowd(served.listener->port(), 200);
    EXPECT_LT(crowd.size(), 200u);
    EXPECT_FALSE(served.CallSelf().ok());
  }
  const absl::Status after = ServedWithin(served, absl::Seconds(20));
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(after.ok()) << after;
  EXPECT_TRUE(served.Call(served.address()).ok());
}

TEST(ListenerTest, WithTlsItStillCallsItselfAndNobodyElseInPlainText) {
  const std::string folder = absl::StrCat(testing::TempDir(), "/listener-tls-", getpid());
  std::filesystem::create_directories(folder);
  TlsFiles tls{.ca = folder + "/cert.pem", .certificate = folder + "/cert.pem", .key = folder + "/key.pem"};
  const auto made = RunProgram({"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                                "/CN=localhost", "-keyout", tls.key, "-out", tls.certificate},
                               {});
  if (!made.ok() || made->exit_code != 0) GTEST_SKIP() << "openssl is not installed";
  std::filesystem::permissions(tls.key, std::filesystem::perms::owner_read);
  {
    const Served served("127.0.0.1:0", tls);
    EXPECT_TRUE(served.CallSelf().ok()) << served.CallSelf();
    EXPECT_FALSE(served.Call(served.address()).ok());  // plain text of anybody else
  }
  std::filesystem::remove_all(folder);
}

TEST(ListenerTest, AnAddressInUseIsNamed) {
  const Served served("127.0.0.1:0");
  grpc::ServerBuilder builder;
  const auto again = Listener::Open(served.address(), {}, {}, builder);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(again.status().message()), testing::HasSubstr(served.address()));
  EXPECT_FALSE(Listener::Open("no-such-host.invalid:1", {}, {}, builder).ok());
}

TEST(ConnectionCeilingTest, KeepsTheReserveButNeverMoreThanHalf) {
  EXPECT_EQ(ConnectionCeiling({.descriptor_limit = 1024, .reserve = 64}), 960);
  EXPECT_EQ(ConnectionCeiling({.descriptor_limit = 100, .reserve = 500}), 50);
}

TEST(DescriptorsTest, TheLimitIsRaisedOrNamed) {
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit low = {64, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &low);
  const auto raised = RaiseDescriptorLimit(65);
  ASSERT_TRUE(raised.ok()) << raised.status();
  EXPECT_EQ(*raised, static_cast<int64_t>(std::min<rlim_t>(before.rlim_max, kMostDescriptors)));
  const auto refused = RaiseDescriptorLimit(int64_t{1} << 40);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST(DescriptorsTest, ClosedStandardDescriptorsLeadToDevNull) {
  const pid_t child = fork();
  if (child == 0) {
    for (const int fd : {0, 1, 2}) close(fd);
    OpenStandardDescriptors();
    const int next = open("/dev/null", O_RDONLY);
    _exit(next > 2 && write(2, "x", 1) == 1 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace athanor

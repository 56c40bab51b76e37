#include "common/service/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

constexpr int kKeepAliveMs = 20000;
constexpr int kKeepAliveTimeoutMs = 10000;
constexpr int kHandshakeTimeoutMs = 10000;

absl::StatusOr<std::string> ReadFile(const std::string& path, bool secret) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0)
    return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
  if (secret && (info.st_mode & S_IROTH) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is readable by everyone; chmod 600 it"));
  }
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  return text.str();
}

absl::Status CheckAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return absl::OkStatus();
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("address '", address, "': expected host:port"));
  }
  const std::string host = address.substr(0, colon);
  if (absl::StrContains(host, "/"))
    return absl::InvalidArgumentError(absl::StrCat("address '", address, "': expected host:port, without a scheme"));
  if (absl::StrContains(host, ":") && (host.front() != '[' || host.back() != ']'))
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "': an IPv6 address stands in brackets, [", host, "]:", port));
  return absl::OkStatus();
}

// The token travels with each call; the file is read for each connection, so that a new token needs no restart.
class BearerToken : public grpc::MetadataCredentialsPlugin {
 public:
  explicit BearerToken(std::string path) : path_(std::move(path)) {}
  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<grpc::string, grpc::string>* metadata) override {
    absl::StatusOr<std::string> token = ReadFile(path_, /*secret=*/true);
    if (!token.ok()) return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, std::string(token.status().message()));
    metadata->emplace("authorization", absl::StrCat("Bearer ", std::string(absl::StripAsciiWhitespace(*token))));
    return grpc::Status::OK;
  }
  bool IsBlocking() const override { return true; }

 private:
  const std::string path_;
};

}  // namespace

bool IsLoopback(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return host == "localhost" || host == "::1" ||
         (absl::StartsWith(host, "127.") && host.find_first_not_of("0123456789.") == std::string::npos);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const ChannelOptions& options) {
  RETURN_IF_ERROR(CheckAddress(address));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepAliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Channels of one process must not share a broken connection's back-off.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (options.tls.enabled()) {
    grpc::SslCredentialsOptions ssl;
    if (!options.tls.ca.empty()) {
      ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(options.tls.ca, false));
    }
    if (!options.tls.certificate.empty()) {
      ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadFile(options.tls.certificate, false));
      ASSIGN_OR_RETURN(ssl.pem_private_key, ReadFile(options.tls.key, true));
    }
    credentials = grpc::SslCredentials(ssl);
  } else {
    if (!IsLoopback(address)) {
      return absl::InvalidArgumentError(
          absl::StrCat("plain text to ", address, " is refused: give TLS files, or use a loopback address"));
    }
    credentials = grpc::InsecureChannelCredentials();
  }
  if (!options.token_file.empty()) {
    RETURN_IF_ERROR(ReadFile(options.token_file, true).status());
    auto call = grpc::MetadataCredentialsFromPlugin(std::make_unique<BearerToken>(options.token_file));
    // gRPC attaches call credentials only to channels that it holds for safe; loopback is, through "local" credentials.
    if (!options.tls.enabled())
      credentials = grpc::experimental::LocalCredentials(absl::StartsWith(address, "unix:") ? UDS : LOCAL_TCP);
    credentials = grpc::CompositeChannelCredentials(credentials, call);
  }
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

void ConfigureServer(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepAliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kKeepAliveMs / 2);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  // A connection that never speaks leaves its descriptor to others.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 1024);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsFiles& tls) {
  if (!tls.enabled()) return grpc::InsecureServerCredentials();
  if (tls.certificate.empty() || tls.key.empty())
    return absl::InvalidArgumentError("TLS needs a certificate and a key");
  grpc::SslServerCredentialsOptions ssl(tls.ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                       : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  if (!tls.ca.empty()) {
    ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(tls.ca, false));
  }
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  ASSIGN_OR_RETURN(pair.cert_chain, ReadFile(tls.certificate, false));
  ASSIGN_OR_RETURN(pair.private_key, ReadFile(tls.key, true));
  ssl.pem_key_cert_pairs.push_back(std::move(pair));
  return grpc::SslServerCredentials(ssl);
}

}  // namespace athanor

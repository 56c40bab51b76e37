// Channels and servers of the control plane: keep-alive, message limits and credentials in one place, equal on both
// sides.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

inline constexpr int kMaxMessageBytes = 4 * 1024 * 1024;
// What goes into a message leaves room for what goes around it: a job's specification comes back in launches and
// answers, a rank's call travels on inside a message of its agent, a page of a list ends once it has so many bytes, and
// so do the details of one job.
inline constexpr int kMaxSpecBytes = 2 * 1024 * 1024;
inline constexpr int kMaxRankMessageBytes = 1024 * 1024;
inline constexpr int kMaxPageBytes = 1024 * 1024;

// Paths of PEM files; all empty = plain text, allowed to and from loopback and Unix sockets only.
struct TlsFiles {
  std::string ca, certificate, key;
  bool enabled() const { return !ca.empty() || !certificate.empty() || !key.empty(); }
};

struct ChannelOptions {
  TlsFiles tls;
  std::string token_file;  // bearer token, read at each connect; only sent over TLS or loopback
};

// `address` is "host:port" or "unix:/path". Does not connect yet.
// INVALID_ARGUMENT: malformed address, or plain text to another machine. NOT_FOUND: a file is missing.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const ChannelOptions& options);

// Keep-alive and message limits of a server; credentials of its listener (listener.h).
void ConfigureServer(grpc::ServerBuilder& builder);
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsFiles& tls);
// True for 127.0.0.0/8, ::1, localhost and unix: addresses.
bool IsLoopback(const std::string& address);

}  // namespace athanor

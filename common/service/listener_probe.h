// What listens at an address: gRPC reports plain text meeting TLS as a broken connection, and nothing else.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace athanor {

enum class ListenerKind {
  kNone,   // the connection is refused
  kPlain,  // answers, but not in TLS
  kTls,
  kUnknown,  // no such host, no answer in time
};

// Connects to "host:port" or "unix:/path" and begins a TLS handshake. Takes at most `limit` for each address that the
// name has, plus the look-up of the name.
ListenerKind ProbeListener(const std::string& address, absl::Duration limit);

// "coordinator host:1 speaks TLS, this agent speaks plain text: …" for `us` = "this agent"; empty where both sides
// speak alike, or nobody can be asked. Blocks as ProbeListener() does.
std::string TransportMismatch(const std::string& address, bool we_speak_tls, const std::string& us);

}  // namespace athanor
